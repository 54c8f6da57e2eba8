//! One end of an SMTP connection, read and written line by line, each line printed as it passes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::feed::PATIENCE;

/// The longest line that an actor takes.
const LINE_LIMIT: u64 = 4096;

/// A connection, and whether its lines are printed.
#[derive(Debug)]
pub struct Lines {
    stream: BufReader<TcpStream>,
    /// Printed before each line that is read, and each that is written.
    marks: Option<[&'static str; 2]>,
}

impl Lines {
    /// A connection whose lines are not printed.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), marks: None })
    }

    /// Prints each line from now on, what is read behind the first mark, what is written behind the second.
    pub fn printed(mut self, read: &'static str, written: &'static str) -> Self {
        self.marks = Some([read, written]);
        self
    }

    /// This end's address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    /// The next line with its end; none where the other side has closed.
    pub fn read(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        (&mut self.stream).take(LINE_LIMIT).read_line(&mut line)?;
        self.print(0, &line);
        Ok((!line.is_empty()).then_some(line))
    }

    /// The next reply: a line without a `-` behind its code, and those before it that have one.
    pub fn read_reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            let line = self.read()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(reply);
            }
        }
    }

    /// Writes text as it is, in one call.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        text.split_inclusive('\n').for_each(|line| self.print(1, line));
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Writes a command and reads its reply.
    pub fn ask(&mut self, command: &str) -> io::Result<String> {
        self.write(command)?;
        self.read_reply()
    }

    /// Something that was sent together with the last line is still to be read.
    pub fn has_more(&self) -> bool {
        self.stream.buffer().contains(&b'\n')
    }

    fn print(&self, which: usize, line: &str) {
        if let Some(marks) = self.marks
            && !line.is_empty()
        {
            println!("{}{}", marks[which], line.trim_end());
        }
    }
}

/// The first word of a command, in upper case.
pub fn verb(command: &str) -> String {
    command.split_ascii_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}
