//! An upstream registry whose every answer a test decides, and which remembers what it was asked.
//!
//! ```ignore
//! let upstream = Upstream::start();
//! upstream.add("library/app", "latest", &image);
//! upstream.rule(|asked| asked.path.contains("/blobs/").then(|| Answer::status(503)));
//! ```

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::image::{Blob, Image, Manifest};

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// `GET /v2/...`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What to send, and how badly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    cut: Option<usize>,
    /// After so many bytes of the body it waits until the gate opens.
    gate: Option<(usize, Gate)>,
    /// Nothing at all is sent.
    hang_up: bool,
    chunked: bool,
}

/// Closed until a test opens it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn wait(&self) {
        // Two minutes: a test that failed does not open it.
        for _ in 0..12_000 {
            if self.0.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Answer {
            status,
            ..Answer::default()
        }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Answer {
            status: 200,
            body: body.into(),
            ..Answer::default()
        }
    }

    pub(crate) fn hang_up() -> Self {
        Answer {
            hang_up: true,
            ..Answer::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    pub(crate) fn wait_after(mut self, bytes: usize, gate: &Gate) -> Self {
        self.gate = Some((bytes, gate.clone()));
        self
    }

    /// Without a Content-Length.
    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }
}

type Rule = Box<dyn Fn(&Asked) -> Option<Answer> + Send + Sync>;

#[derive(Default)]
struct State {
    asked: Mutex<Vec<Asked>>,
    /// The latest first; what none answers is answered from `content`.
    rules: Mutex<Vec<Arc<Rule>>>,
    content: Mutex<HashMap<String, Answer>>,
    over: AtomicBool,
}

pub(crate) struct Upstream {
    addr: SocketAddr,
    state: Arc<State>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let served = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.over.load(Ordering::SeqCst) {
                    break;
                }
                if let Ok(stream) = stream {
                    let state = served.clone();
                    thread::spawn(move || _ = serve(&state, stream));
                }
            }
        });
        Upstream { addr, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// An image under a tag and its digest.
    pub(crate) fn add(&self, repo: &str, tag: &str, image: &Image) {
        self.add_manifest(repo, tag, &image.manifest);
        for blob in image.blobs() {
            self.add_blob(repo, blob);
        }
    }

    pub(crate) fn add_manifest(&self, repo: &str, tag: &str, manifest: &Manifest) {
        let answer = Answer::ok(manifest.bytes())
            .header("Content-Type", &manifest.media_type)
            .header("Docker-Content-Digest", manifest.digest());
        for reference in [tag, manifest.digest()] {
            self.answer(&format!("/v2/{repo}/manifests/{reference}"), answer.clone());
        }
    }

    pub(crate) fn add_blob(&self, repo: &str, blob: &Blob) {
        let answer = Answer::ok(blob.bytes.as_slice());
        self.answer(&format!("/v2/{repo}/blobs/{}", blob.digest), answer);
    }

    /// What lies at a path, for GET and HEAD.
    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        let mut content = self.state.content.lock().unwrap();
        content.insert(path.to_owned(), answer);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.content.lock().unwrap().remove(path);
    }

    /// Goes before the content, and before the rules that are there.
    pub(crate) fn rule(&self, rule: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        let mut rules = self.state.rules.lock().unwrap();
        rules.insert(0, Arc::new(Box::new(rule)));
    }

    pub(crate) fn no_rules(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// Everything so far, in the order in which it came.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How often it was asked for what begins like this: `GET /v2/app/blobs/`.
    pub(crate) fn count(&self, line: &str) -> usize {
        let asked = self.state.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.line().starts_with(line))
            .count()
    }

    pub(crate) fn forget_asked(&self) {
        self.state.asked.lock().unwrap().clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr); // so that it looks
    }
}

fn serve(state: &State, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = read_request(&mut reader)? {
        state.asked.lock().unwrap().push(asked.clone());
        let rules = state.rules.lock().unwrap().clone();
        let by_rule = rules.iter().find_map(|rule| rule(&asked));
        let answer = by_rule.unwrap_or_else(|| {
            let content = state.content.lock().unwrap();
            let answer = content.get(&asked.path).cloned();
            answer.unwrap_or_else(|| Answer::status(404))
        });
        if !send(&stream, &asked, answer)? {
            break;
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Some(Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
    }))
}

/// Whether the connection can go on.
fn send(mut stream: &TcpStream, asked: &Asked, answer: Answer) -> std::io::Result<bool> {
    if answer.hang_up {
        return Ok(false);
    }
    let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
    let mut body = &answer.body[..];
    // Ranges are understood where nothing else was said.
    let from = asked.header("range").filter(|_| answer.status == 200);
    let from = from.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    if let Some(from) = from.filter(|from: &usize| *from < body.len()) {
        let total = body.len();
        body = &body[from..];
        head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}\r\n",
            total - 1
        );
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if answer.chunked {
        head += "Transfer-Encoding: chunked\r\n\r\n";
    } else {
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
    }
    stream.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    let mut parts: Vec<(&[u8], Option<&Gate>)> = vec![(body, None)];
    if let Some((at, gate)) = &answer.gate {
        let (before, after) = body.split_at((*at).min(body.len()));
        parts = vec![(before, None), (after, Some(gate))];
    }
    let mut left = answer.cut.unwrap_or(usize::MAX);
    for (part, gate) in parts {
        if let Some(gate) = gate {
            gate.wait();
        }
        let part = &part[..part.len().min(left)];
        left -= part.len();
        if answer.chunked && !part.is_empty() {
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
        }
        stream.write_all(part)?;
        if answer.chunked && !part.is_empty() {
            stream.write_all(b"\r\n")?;
        }
    }
    if answer.chunked && answer.cut.is_none() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(answer.cut.is_none())
}
