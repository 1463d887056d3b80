//! Where a message begins and ends on a connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Room for a message of usual size; grows for others.
const ROOM: usize = 16 * 1024;
/// More headers than that has no message that we expect.
const HEADERS: usize = 64;

/// Which messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Requests: we are the server.
    Requests,
    /// Answers: we are the client.
    Answers,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
}

/// What the head of a message said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    /// Its bytes.
    bytes: usize,
    length: Length,
    /// Of an answer; 0 of a request.
    status: u16,
    /// The number that the path of a request ends with; 0 where it is none.
    path: u32,
    /// Whether the connection ends with this message.
    last: bool,
}

/// A message that has been read. Its body is in the reader.
#[derive(Debug)]
pub struct Message {
    /// Of an answer; 0 of a request.
    pub status: u16,
    /// The number that the path of a request is; 0 where it is none.
    pub path: u32,
    /// Whether the connection ends with this message.
    pub last: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    InPlace { from: usize, until: usize },
    Joined(Vec<u8>),
}

/// Reads messages from a connection, one after the other.
#[derive(Debug)]
pub struct Reader {
    side: Side,
    buffer: Vec<u8>,
    filled: usize,
    /// The bytes of the last message, which are still in the buffer.
    spent: usize,
}

impl Reader {
    /// For one connection.
    pub fn new(side: Side) -> Self {
        Self { side, buffer: vec![0; ROOM], filled: 0, spent: 0 }
    }

    /// The body of the message that was read last.
    pub fn body<'a>(&'a self, message: &'a Message) -> &'a [u8] {
        match &message.body {
            Body::InPlace { from, until } => self.buffer.get(*from..*until).unwrap_or_default(),
            Body::Joined(body) => body,
        }
    }

    /// The next message; None where the other side has ended the connection between two messages.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP/1.1.
    pub async fn next<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<Option<Message>> {
        self.buffer.copy_within(self.spent..self.filled, 0);
        self.filled -= self.spent;
        self.spent = 0;
        let mut head = None;
        loop {
            if head.is_none() && self.filled > 0 {
                head = parse(self.side, &self.buffer[..self.filled])?;
            }
            if let Some(head) = head
                && let Some(message) = self.complete(head)?
            {
                return Ok(Some(message));
            }
            if self.filled == self.buffer.len() {
                let wanted = match head {
                    Some(Head { bytes, length: Length::Known(length), .. }) => bytes + length,
                    _ => 0,
                };
                self.buffer.resize(wanted.max(2 * self.filled), 0);
            }
            match stream.read(&mut self.buffer[self.filled..]).await? {
                0 if self.filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => self.filled += more,
            }
        }
    }

    /// The message with this head, once all of it is in the buffer.
    fn complete(&mut self, head: Head) -> io::Result<Option<Message>> {
        let (body, end) = match head.length {
            Length::Known(length) => {
                let end = head.bytes + length;
                if self.filled < end {
                    return Ok(None);
                }
                (Body::InPlace { from: head.bytes, until: end }, end)
            }
            Length::Chunked => match joined(&self.buffer[head.bytes..self.filled])? {
                Some((body, bytes)) => (Body::Joined(body), head.bytes + bytes),
                None => return Ok(None),
            },
        };
        self.spent = end;
        Ok(Some(Message { status: head.status, path: head.path, last: head.last, body }))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The head of the message that the buffer begins with, once all of it is there.
fn parse(side: Side, buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = Head { bytes: 0, length: Length::Known(0), status: 0, path: 0, last: false };
    let headers = match side {
        Side::Requests => {
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(buffer).map_err(|error| malformed(&error.to_string()))? {
                httparse::Status::Partial => return Ok(None),
                httparse::Status::Complete(bytes) => head.bytes = bytes,
            }
            head.path = request.path.and_then(path_number).unwrap_or(0);
            head.last = request.version == Some(0);
            request.headers
        }
        Side::Answers => {
            let mut answer = httparse::Response::new(&mut headers);
            match answer.parse(buffer).map_err(|error| malformed(&error.to_string()))? {
                httparse::Status::Partial => return Ok(None),
                httparse::Status::Complete(bytes) => head.bytes = bytes,
            }
            head.status = answer.code.unwrap_or(0);
            head.last = answer.version == Some(0);
            answer.headers
        }
    };
    let mut told = side == Side::Requests || head.status == 204 || head.status == 304;
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok());
            head.length = Length::Known(length.ok_or_else(|| malformed("a content-length that is no number"))?);
            told = true;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.length = Length::Chunked;
            told = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.last |= header.value.eq_ignore_ascii_case(b"close");
        }
    }
    if told { Ok(Some(head)) } else { Err(malformed("an answer that does not tell its length")) }
}

fn path_number(path: &str) -> Option<u32> {
    path.rsplit('/').next()?.parse().ok()
}

/// The body that these chunks make, and how many bytes they are; None where the last is not there.
fn joined(chunks: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (digits, length) = match httparse::parse_chunk_size(&chunks[at..]) {
            Ok(httparse::Status::Complete((digits, length))) => (digits, usize::try_from(length).unwrap_or(usize::MAX)),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(malformed("a chunk without a length")),
        };
        let from = at + digits;
        let Some(end) = from.checked_add(length).and_then(|end| end.checked_add(2)).filter(|end| *end <= chunks.len())
        else {
            return Ok(None);
        };
        // A trailer would stand before the last line end; nobody sends us one.
        if &chunks[end - 2..end] != b"\r\n" {
            return Err(malformed("a chunk that does not end where it says"));
        }
        if length == 0 {
            return Ok(Some((body, end)));
        }
        body.extend_from_slice(&chunks[from..end - 2]);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::ErrorKind;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::{Reader, Side};

    /// Whatever the pieces in which it comes, the same messages are read.
    #[tokio::test]
    async fn messages_are_found_in_any_pieces() {
        let long = "y".repeat(40_000);
        let text = format!(
            "POST /x/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n3\r\nfgh\r\n0\r\n\r\n\
             POST /8 HTTP/1.1\r\ncontent-length: 40000\r\nconnection: close\r\n\r\n{long}"
        );
        for piece in [1, 7, 64, 100_000] {
            let (mut ours, mut theirs) = duplex(128);
            let text = text.clone();
            let writer = tokio::spawn(async move {
                for piece in text.as_bytes().chunks(piece) {
                    theirs.write_all(piece).await.unwrap();
                }
            });
            let mut reader = Reader::new(Side::Requests);
            for (path, body, last) in [(7, "abc", false), (0, "defgh", false), (8, &*long, true)] {
                let message = reader.next(&mut ours).await.unwrap().unwrap();
                assert_eq!((message.path, message.last), (path, last));
                assert_eq!(reader.body(&message), body.as_bytes());
            }
            writer.await.unwrap();
            assert!(reader.next(&mut ours).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn answers_tell_their_status_and_what_is_none_is_an_error() {
        let read = async |text: &str| {
            let mut bytes = text.as_bytes();
            let read = Reader::new(Side::Answers).next(&mut bytes).await;
            read.map(|message| message.map(|message| message.status)).map_err(|error| error.kind())
        };
        assert_eq!(read("HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}").await, Ok(Some(202)));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(Some(204)));
        assert_eq!(read("").await, Ok(None));
        assert_eq!(read("HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{").await, Err(ErrorKind::UnexpectedEof));
        assert_eq!(read("HTTP/1.1 202 Accepted\r\n\r\n").await, Err(ErrorKind::InvalidData));
        assert_eq!(read("SMTP\r\n\r\n").await, Err(ErrorKind::InvalidData));
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n";
        assert_eq!(read(chunks).await, Err(ErrorKind::InvalidData));
    }
}
