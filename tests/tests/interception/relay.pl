# Connects to a server, and passes on what comes from standard input and goes to standard output.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(PeerAddr => $ARGV[0]) or die "no connection: $@";
my $readable = IO::Select->new($server, \*STDIN);
while (my @ready = $readable->can_read) {
    for my $from (@ready) {
        my $count = sysread($from, my $bytes, 65536) // die "nothing can be read: $!";
        if ($from == $server) {
            exit unless $count;
            syswrite(STDOUT, $bytes) // die "nothing can be written: $!";
        } elsif ($count) {
            syswrite($server, $bytes) // die "nothing can be sent: $!";
        } else {
            $readable->remove(\*STDIN);
            shutdown($server, 1);
        }
    }
}
