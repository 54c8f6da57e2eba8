//! Many connections with itself: `crowd ADDRESS:PORT NUMBER` opens so many, each with a greeting, writes `open` to standard
//! error, and holds them until its standard input ends.

use std::io::{self, Read};
use std::net::TcpListener;

use nix::sys::resource::{Resource, setrlimit};
use smtp_observer_tests::greeted::Greeted;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(Ok(number))) = (arguments.next(), arguments.next().map(|number| number.parse::<u64>()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Two for each connection, and some.
    let descriptors = 2 * number + 100;
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    let listener = TcpListener::bind(address)?;
    let connections = (0..number).map(|_| Greeted::at(&listener)).collect::<io::Result<Vec<_>>>()?;
    eprintln!("open");
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(connections);
    Ok(())
}
