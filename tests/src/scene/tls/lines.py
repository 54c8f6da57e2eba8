"""One end of an SMTP connection, read and written line by line."""


class Lines:
    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    def read(self):
        """The next line with its end; empty where the other side has closed."""
        while b"\n" not in self.buffer:
            more = self.stream.recv(4096)
            if not more:
                return ""
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return (line + b"\n").decode()

    def has_more(self):
        """Something that was sent together with the last line is still to be read."""
        return b"\n" in self.buffer

    def reply(self):
        """The next reply, of one line or more."""
        text = line = self.read()
        while line[3:4] == "-":
            line = self.read()
            text += line
        return text

    def write(self, text):
        self.stream.sendall(text.encode())

    def ask(self, command):
        self.write(command)
        return self.reply()

    def speak_tls(self, context, **options):
        """From here on both speak TLS."""
        self.stream = context.wrap_socket(self.stream, **options)
        self.buffer = b""
