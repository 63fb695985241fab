//! A small HTTP/1.1 client that sends what a test says and nothing else: targets are not normalised, bodies go out with a
//! length or in chunks, and a request can be left half-sent.
//!
//! ```ignore
//! let client = Client::new(server.addr());
//! let reply = client.put("/v2/a/manifests/latest").header("Content-Type", OCI_MANIFEST).body(bytes).send().expect(201);
//! assert_eq!(reply.header("docker-content-digest"), Some(digest));
//! ```

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

fn connect_from(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let SocketAddr::V4(to) = to else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(
        socket.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(from, 0)),
    )?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}

/// How long a test waits for one read or write. Long: the tests share small machines with everything else.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Requests to one server, over connections that are kept alive. Clones share the connections; it may be used by many
/// threads at once.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    addr: SocketAddr,
    idle: Arc<Mutex<Vec<TcpStream>>>,
    keep_alive: bool,
    timeout: Duration,
    headers: Vec<(String, String)>,
    from: Option<Ipv4Addr>,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            idle: Arc::default(),
            keep_alive: true,
            timeout: TIMEOUT,
            headers: Vec::new(),
            from: None,
        }
    }

    /// Its connections come from this address: one of 127.0.0.0/8, to be somebody else.
    pub(crate) fn at_address(mut self, from: Ipv4Addr) -> Self {
        self.from = Some(from);
        self.idle = Arc::default();
        self
    }

    /// A new connection for every request.
    pub(crate) fn without_keep_alive(mut self) -> Self {
        self.keep_alive = false;
        self.idle = Arc::default();
        self
    }

    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.idle = Arc::default();
        self
    }

    /// A header that every request of this client carries (`Authorization`, `X-Forwarded-Proto`).
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `target` goes onto the request line as it is.
    pub(crate) fn request(&self, method: &str, target: &str) -> Request<'_> {
        Request {
            client: self,
            method: method.into(),
            target: target.into(),
            headers: self.headers.clone(),
            body: Body::None,
            expect_continue: false,
        }
    }

    pub(crate) fn get(&self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    pub(crate) fn head(&self, target: &str) -> Request<'_> {
        self.request("HEAD", target)
    }

    pub(crate) fn post(&self, target: &str) -> Request<'_> {
        self.request("POST", target)
    }

    pub(crate) fn put(&self, target: &str) -> Request<'_> {
        self.request("PUT", target)
    }

    pub(crate) fn patch(&self, target: &str) -> Request<'_> {
        self.request("PATCH", target)
    }

    pub(crate) fn delete(&self, target: &str) -> Request<'_> {
        self.request("DELETE", target)
    }

    /// Sends exactly `bytes` on a connection of its own and reads one answer (as to a GET).
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<Response> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        let mut body = Vec::new();
        let (mut response, _) = read_response(&mut BufReader::new(stream), false, &mut |part| {
            body.extend_from_slice(part)
        })?;
        response.body = body;
        Ok(response)
    }

    /// A connection of its own, for what no request is.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let stream = match self.from {
            None => TcpStream::connect_timeout(&self.addr, self.timeout)?,
            Some(from) => connect_from(from, self.addr)?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    /// An idle connection that the other side has not closed, or a new one. Requests are never retried, so that a test
    /// knows how often it asked.
    fn connection(&self) -> io::Result<TcpStream> {
        loop {
            let Some(stream) = self.idle.lock().expect("no panic while pooling").pop() else {
                return self.connect();
            };
            stream.set_nonblocking(true)?;
            let still_open =
                matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
            stream.set_nonblocking(false)?;
            if still_open {
                return Ok(stream);
            }
        }
    }
}

enum Body {
    None,
    Sized(Vec<u8>),
    Chunked(Vec<u8>, usize),
}

/// One request being put together.
pub(crate) struct Request<'a> {
    client: &'a Client,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Body,
    expect_continue: bool,
}

impl Request<'_> {
    /// Names may repeat. `Host`, `Content-Length`, `Transfer-Encoding` and `Connection` replace what would be sent.
    pub(crate) fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Appends a query parameter, percent-encoded.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.target = with_query(&self.target, name, value);
        self
    }

    /// With a `Content-Length`.
    pub(crate) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Sized(bytes.into());
        self
    }

    /// With `Transfer-Encoding: chunked`, in chunks of `size` bytes.
    pub(crate) fn chunked(mut self, bytes: impl Into<Vec<u8>>, size: usize) -> Self {
        self.body = Body::Chunked(bytes.into(), size.max(1));
        self
    }

    /// Sends `Expect: 100-continue` and holds the body back until the server asks for it.
    pub(crate) fn expect_continue(mut self) -> Self {
        self.expect_continue = true;
        self
    }

    /// Sends, and panics when there is no whole answer.
    #[track_caller]
    pub(crate) fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.target);
        match self.try_send() {
            Ok(response) => response,
            Err(e) => panic!("{what}: {e}"),
        }
    }

    /// Sends; an error when the connection fails or the answer is not whole.
    pub(crate) fn try_send(self) -> io::Result<Response> {
        let mut body = Vec::new();
        let mut response = self.try_download(&mut |part| body.extend_from_slice(part))?;
        response.body = body;
        Ok(response)
    }

    /// Like `try_send` for bodies too large to keep: `sink` gets the parts, `Response::body` stays empty.
    pub(crate) fn try_download(mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<Response> {
        let body = std::mem::replace(&mut self.body, Body::None);
        let expect_continue = self.expect_continue;
        let mut exchange = match &body {
            Body::None => self.start_as(Framing::None)?,
            Body::Sized(bytes) => self.start_as(Framing::Length(bytes.len() as u64))?,
            Body::Chunked(..) => self.start_as(Framing::Chunked)?,
        };
        if expect_continue {
            // Anything but 100 is the answer: the server does not want the body.
            exchange.flush_head()?;
            let head = read_head(&mut exchange.stream)?;
            if head.status != 100 {
                read_body(&mut exchange.stream, &head, exchange.head_request, sink)?;
                return Ok(head);
            }
        }
        let sent = match body {
            Body::None => exchange.flush_head(),
            Body::Sized(bytes) => exchange.write(&bytes),
            Body::Chunked(bytes, size) => bytes
                .chunks(size)
                .try_for_each(|chunk| exchange.write(chunk))
                .and_then(|()| exchange.end()),
        };
        match sent {
            Ok(()) => exchange.finish(sink),
            // A server may answer and close before it has read everything; the answer counts.
            Err(e) => exchange.finish(sink).map_err(|_| e),
        }
    }

    /// Sends the head with `Content-Length: length`; the test sends as much of the body as it likes.
    pub(crate) fn start(self, length: u64) -> io::Result<Exchange> {
        let mut exchange = self.start_as(Framing::Length(length))?;
        exchange.flush_head()?;
        Ok(exchange)
    }

    /// Sends the head with `Transfer-Encoding: chunked`; the test sends the chunks.
    pub(crate) fn start_chunked(self) -> io::Result<Exchange> {
        let mut exchange = self.start_as(Framing::Chunked)?;
        exchange.flush_head()?;
        Ok(exchange)
    }

    fn start_as(self, framing: Framing) -> io::Result<Exchange> {
        let given = |name: &str| {
            self.headers
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut add = |name: &str, value: &str| {
            if !given(name) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        };
        add("Host", &self.client.addr.to_string());
        match framing {
            // A POST, PUT or PATCH without a body says so; some proxies and servers answer 411 otherwise.
            Framing::None if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") => {
                add("Content-Length", "0")
            }
            Framing::None => {}
            Framing::Length(length) => add("Content-Length", &length.to_string()),
            Framing::Chunked => add("Transfer-Encoding", "chunked"),
        }
        if self.expect_continue {
            add("Expect", "100-continue");
        }
        if !self.client.keep_alive {
            add("Connection", "close");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        Ok(Exchange {
            client: self.client.clone(),
            head_request: self.method == "HEAD",
            chunked: framing == Framing::Chunked,
            stream: BufReader::with_capacity(64 * 1024, self.client.connection()?),
            head: head.into_bytes(),
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A request on its way. Dropping it drops the connection, whatever was sent by then.
pub(crate) struct Exchange {
    client: Client,
    head_request: bool,
    chunked: bool,
    stream: BufReader<TcpStream>,
    /// What has not been sent of the head: it leaves with the first bytes of the body, in one segment.
    head: Vec<u8>,
}

impl Exchange {
    /// Sends a part of the body; in a chunked request, as one chunk.
    pub(crate) fn write(&mut self, part: &[u8]) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.head);
        if self.chunked {
            if !part.is_empty() {
                out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                out.extend_from_slice(part);
                out.extend_from_slice(b"\r\n");
            }
        } else if out.is_empty() {
            return self.stream.get_mut().write_all(part);
        } else {
            out.extend_from_slice(part);
        }
        self.stream.get_mut().write_all(&out)
    }

    /// The last chunk of a chunked request; nothing for one with a length.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.flush_head()?;
        if self.chunked {
            self.stream.get_mut().write_all(b"0\r\n\r\n")
        } else {
            Ok(())
        }
    }

    /// Bytes as they are, past the framing.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush_head()?;
        self.stream.get_mut().write_all(bytes)
    }

    /// Tells the server that nothing more comes, and still reads.
    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        self.flush_head()?;
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Reads the answer.
    pub(crate) fn response(self) -> io::Result<Response> {
        let mut body = Vec::new();
        let mut response = self.finish(&mut |part| body.extend_from_slice(part))?;
        response.body = body;
        Ok(response)
    }

    /// Reads only the head of the answer and leaves the rest unread, as a client does that goes away.
    pub(crate) fn response_head(&mut self) -> io::Result<Response> {
        self.flush_head()?;
        read_head(&mut self.stream)
    }

    fn flush_head(&mut self) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        self.stream.get_mut().write_all(&head)
    }

    fn finish(mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<Response> {
        let (response, open) = read_response(&mut self.stream, self.head_request, sink)?;
        if open && self.client.keep_alive && self.stream.buffer().is_empty() {
            self.client
                .idle
                .lock()
                .expect("no panic while pooling")
                .push(self.stream.into_inner());
        }
        Ok(response)
    }
}

/// An answer, whole.
#[derive(Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of this name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a header that may repeat.
    pub(crate) fn header_values(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(e) => panic!("not JSON ({e}): {self:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Panics unless the status is `status`; otherwise hands the answer on.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "status, of {self:?}");
        self
    }

    /// Panics unless the answer has `status` and is an error of the spec with `code`.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(
            reply.error_code().as_deref(),
            Some(code),
            "error code, of {reply:?}"
        );
        reply
    }

    /// `errors[0].code` of the spec's error body, if this is one.
    pub(crate) fn error_code(&self) -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(
            value
                .get("errors")?
                .get(0)?
                .get("code")?
                .as_str()?
                .to_owned(),
        )
    }

    /// The target of `Location`, without scheme and authority.
    #[track_caller]
    pub(crate) fn location(&self) -> String {
        let Some(location) = self.header("location") else {
            panic!("no Location: {self:?}")
        };
        target_of(location)
    }

    /// The target of `Link: <…>; rel="next"`, if there is one.
    pub(crate) fn next_page(&self) -> Option<String> {
        let (target, rel) = self.header("link")?.strip_prefix('<')?.split_once('>')?;
        rel.contains("next").then(|| target_of(target))
    }
}

/// A target from a URL, which may be relative already.
fn target_of(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) => rest
            .find('/')
            .map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned()),
        None => url.to_owned(),
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            write!(f, " | {name}: {value}")?;
        }
        let shown = &self.body[..self.body.len().min(600)];
        write!(
            f,
            " | body of {} bytes: {}",
            self.body.len(),
            String::from_utf8_lossy(shown)
        )
    }
}

/// `target` with a query parameter appended, percent-encoded: for `Location`s, which may have a query of their own.
pub(crate) fn with_query(target: &str, name: &str, value: &str) -> String {
    let mark = if target.contains('?') { '&' } else { '?' };
    let mut out = format!("{target}{mark}{name}=");
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(64 * 1024).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        let kind = if line.is_empty() {
            io::ErrorKind::ConnectionAborted
        } else {
            io::ErrorKind::UnexpectedEof
        };
        return Err(io::Error::new(
            kind,
            "connection closed before the head of the answer was whole",
        ));
    }
    while matches!(line.last(), Some(b'\r' | b'\n')) {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| bad("head of the answer is not UTF-8"))
}

fn read_head(from: &mut impl BufRead) -> io::Result<Response> {
    let line = read_line(from)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| bad(format!("status line {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(Response {
                status,
                headers,
                body: Vec::new(),
            });
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad(format!("header line {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// The answer (its body goes to `sink`), and whether the connection can carry another request.
fn read_response(
    from: &mut impl BufRead,
    head_request: bool,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<(Response, bool)> {
    loop {
        let head = read_head(from)?;
        if head.status >= 200 || head.status == 101 {
            let open = read_body(from, &head, head_request, sink)?;
            return Ok((head, open));
        }
    }
}

fn read_body(
    from: &mut impl BufRead,
    head: &Response,
    head_request: bool,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<bool> {
    let open = !head
        .header("connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if head_request || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(open);
    }
    if head
        .header("transfer-encoding")
        .is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"))
    {
        loop {
            let line = read_line(from)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                u64::from_str_radix(size, 16).map_err(|_| bad(format!("chunk size {line:?}")))?;
            if size == 0 {
                while !read_line(from)?.is_empty() {}
                return Ok(open);
            }
            copy_exactly(from, size, sink)?;
            if !read_line(from)?.is_empty() {
                return Err(bad("chunk without its end"));
            }
        }
    }
    if let Some(length) = head.header("content-length") {
        let length = length
            .parse()
            .map_err(|_| bad(format!("Content-Length {length:?}")))?;
        copy_exactly(from, length, sink)?;
        return Ok(open);
    }
    loop {
        let part = from.fill_buf()?;
        if part.is_empty() {
            return Ok(false);
        }
        sink(part);
        let length = part.len();
        from.consume(length);
    }
}

fn copy_exactly(
    from: &mut impl BufRead,
    mut length: u64,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    while length > 0 {
        let part = from.fill_buf()?;
        if part.is_empty() {
            let e = format!("connection closed {length} bytes before the end of the body");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, e));
        }
        let take = part
            .len()
            .min(usize::try_from(length).unwrap_or(usize::MAX));
        sink(&part[..take]);
        from.consume(take);
        length -= take as u64;
    }
    Ok(())
}

mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::{Client, with_query};

    /// Answers each connection's requests with `answers`, then closes it; what it got goes to the caller.
    fn serve(connections: Vec<Vec<&'static str>>) -> (Client, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let mut got = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let mut request = Vec::new();
                    // Every request here ends in a blank line or in the word that ends its body.
                    while !(request.ends_with(b"\r\n\r\n") || request.ends_with(b"END")) {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        request.push(byte[0]);
                        if request.ends_with(b"Length: 8\r\n\r\n")
                            || request.ends_with(b"chunked\r\n\r\n")
                        {
                            request.push(b' ');
                        }
                    }
                    got.push(String::from_utf8(request).unwrap());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
            got
        });
        (client, thread)
    }

    #[test]
    fn sends_what_it_was_told_and_reuses_connections() {
        let (client, thread) = serve(vec![
            vec![
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                "HTTP/1.1 204 No Content\r\n\r\n",
            ],
            vec![
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            ],
        ]);
        let reply = client
            .get("/v2/../%2e//x?n=1")
            .header("Accept", "a")
            .header("Accept", "b")
            .send()
            .expect(200);
        assert_eq!(
            (reply.text().as_str(), reply.header("CONTENT-length")),
            ("hi", Some("2"))
        );
        client.put("/x").body("bytesEND").send().expect(204);
        // The server has closed the first connection; that is noticed, and nothing is sent twice.
        while client.idle.lock().unwrap()[0].peek(&mut [0]).unwrap() != 0 {}
        assert_eq!(
            client.head("/y").send().expect(200).text(),
            "",
            "a HEAD has no body, whatever its head says"
        );
        let got = thread.join().unwrap();
        assert!(
            got[0].starts_with("GET /v2/../%2e//x?n=1 HTTP/1.1\r\nHost: 127.0.0.1:"),
            "{}",
            got[0]
        );
        assert!(got[0].contains("Accept: a\r\nAccept: b\r\n"), "{}", got[0]);
        assert!(
            got[1].contains("Content-Length: 8\r\n") && got[1].ends_with("bytesEND"),
            "{}",
            got[1]
        );
        assert_eq!(got.len(), 3);
    }

    #[test]
    fn reads_chunks_and_bodies_without_length() {
        let (client, thread) = serve(vec![
            vec![
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            ],
            vec!["HTTP/1.1 200 OK\r\n\r\nto the end"],
        ]);
        let client = client.without_keep_alive();
        assert_eq!(client.get("/").send().text(), "abcde");
        assert_eq!(client.get("/").send().text(), "to the end");
        assert!(thread.join().unwrap()[0].contains("Connection: close\r\n"));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_an_error() {
        let (client, thread) = serve(vec![
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"],
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
            vec!["HTTP/1.1 200 OK\r\nContent-"],
            vec![""],
        ]);
        for _ in 0..4 {
            assert!(client.get("/").try_send().is_err());
        }
        thread.join().unwrap();
    }

    #[test]
    fn frames_chunked_requests_and_waits_for_100_continue() {
        let (client, thread) = serve(vec![
            vec!["HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"],
            vec!["HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"],
        ]);
        let mut exchange = client.patch("/").start_chunked().unwrap();
        exchange.write(b"hello").unwrap();
        exchange.write_raw(b"END").unwrap();
        assert_eq!(exchange.response().unwrap().status, 201);
        let client = client.without_keep_alive();
        client
            .put("/")
            .body("never sent")
            .expect_continue()
            .send()
            .expect(413);
        let got = thread.join().unwrap();
        assert!(
            got[0].ends_with("chunked\r\n\r\n 5\r\nhello\r\nEND"),
            "{}",
            got[0]
        );
        assert!(
            got[1].contains("Expect: 100-continue") && !got[1].contains("never"),
            "{}",
            got[1]
        );
    }

    #[test]
    fn encodes_queries() {
        assert_eq!(
            with_query("/a", "digest", "sha256:00"),
            "/a?digest=sha256:00"
        );
        assert_eq!(with_query("/a?b=c", "d", "x y&z+"), "/a?b=c&d=x%20y%26z%2B");
    }
}
