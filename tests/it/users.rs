//! The commands about users, as somebody at a terminal meets them, and what they do to a registry that runs.

use std::fs;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::auth::{Home, basic};
use crate::support::server::{Server, eventually};

const RULES: &str = "[{who: anyone, allow: pull}, {who: users, allow: all}]";

/// What somebody sees and types.
struct Terminal {
    screen: File,
    seen: String,
    child: Child,
}

impl Terminal {
    fn run(home: &Home, args: &[&str]) -> Self {
        let pty = openpty(None, None).expect("a pseudo terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("its other end"));
        let child = Command::new(env!("CARGO_BIN_EXE_registry"))
            .args(args)
            .arg("--config")
            .arg(home.path("config.yml"))
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the binary starts");
        Terminal {
            screen: pty.master.into(),
            seen: String::new(),
            child,
        }
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut piece = [0; 256];
            // Err: the other end is closed.
            let read = self.screen.read(&mut piece).unwrap_or(0);
            assert!(read > 0, "no {text:?} in {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("typed");
    }

    /// All that was on the screen, and whether it ended well.
    fn end(mut self) -> (String, bool) {
        let shown = tcgetattr(&self.screen).expect("a terminal");
        let is_good = self.child.wait().expect("waitpid").success();
        let after = tcgetattr(&self.screen).expect("a terminal");
        let flags = LocalFlags::ECHO | LocalFlags::ISIG;
        assert!(
            after.local_flags.contains(flags),
            "{shown:?} became {after:?}"
        );
        let mut rest = Vec::new();
        // Err: the other end is closed.
        let _ = self.screen.read_to_end(&mut rest);
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        (self.seen, is_good)
    }
}

#[test]
fn a_password_is_asked_for_twice_and_never_shown() {
    let home = Home::new("");
    let mut terminal = Terminal::run(&home, &["user", "add", "alice"]);
    terminal.wait_for("Password for alice: ");
    terminal.type_in("hunter2 \u{fc}\n");
    terminal.wait_for("Once more: ");
    terminal.type_in("hunter2 \u{fc}\n");
    let (seen, is_good) = terminal.end();
    assert!(is_good && !seen.contains("hunter2"), "{seen}");
    let server = home.serve(None);
    let alice = basic("alice", "hunter2 \u{fc}");
    server
        .client()
        .get("/v2/")
        .header("Authorization", &alice)
        .send()
        .expect(200);

    let before = fs::read(home.path("htpasswd")).unwrap();
    let mut terminal = Terminal::run(&home, &["user", "passwd", "alice"]);
    terminal.wait_for("Password for alice: ");
    terminal.type_in("one\n");
    terminal.wait_for("Once more: ");
    terminal.type_in("another\n");
    let (seen, is_good) = terminal.end();
    assert!(!is_good && seen.contains("are not the same"), "{seen}");

    let mut terminal = Terminal::run(&home, &["user", "passwd", "alice"]);
    terminal.wait_for("Password for alice: ");
    terminal.type_in("half a pass\u{3}");
    let (seen, is_good) = terminal.end();
    assert!(
        !is_good && seen.contains("interrupted") && !seen.contains("half"),
        "{seen}"
    );
    assert_eq!(fs::read(home.path("htpasswd")).unwrap(), before);
}

fn token(server: &Server, query: &str, authorization: Option<&str>) -> (u16, serde_json::Value) {
    let client = server.client();
    let request = client.get(&format!("/auth/token?service=registry&{query}"));
    let request = match authorization {
        Some(value) => request.header("Authorization", value),
        None => request,
    };
    let reply = request.send();
    (reply.status, reply.json())
}

#[test]
fn who_is_logged_out_has_to_log_in_again() {
    let home = Home::new(&format!("access: {RULES}"));
    home.add_user("alice", "secret");
    home.add_user("bob", "secret");
    let server = home.serve(Some(RULES));
    let sessions: Vec<(String, String)> = ["alice", "bob"]
        .map(|name| {
            let (status, body) = token(
                &server,
                "offline_token=true&scope=repository:a:pull,push",
                Some(&basic(name, "secret")),
            );
            assert_eq!(status, 200, "{body}");
            let text = |key: &str| body[key].as_str().expect("a token").to_owned();
            (text("token"), text("refresh_token"))
        })
        .into();
    let starts = |(access, _): &(String, String)| {
        let client = server.client();
        let request = client.post("/v2/a/blobs/uploads/");
        request
            .header("Authorization", format!("Bearer {access}"))
            .send()
            .status
    };
    let refreshes = |(_, refresh): &(String, String)| {
        let form = format!(
            "grant_type=refresh_token&refresh_token={refresh}&service=registry&scope=repository:a:pull"
        );
        let client = server.client();
        let request = client.post("/auth/token");
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        request.body(form.into_bytes()).send().status
    };
    assert_eq!((starts(&sessions[0]), refreshes(&sessions[0])), (202, 200));

    home.ok(&["user", "logout", "alice"], "");
    eventually("alice is logged out", || {
        (starts(&sessions[0]) == 401).then_some(())
    });
    assert_eq!(refreshes(&sessions[0]), 401);
    assert_eq!(
        (starts(&sessions[1]), refreshes(&sessions[1])),
        (202, 200),
        "bob is not"
    );
    // The password is good, and so is what it gets.
    let (status, body) = token(
        &server,
        "scope=repository:a:pull,push",
        Some(&basic("alice", "secret")),
    );
    assert_eq!(status, 200, "{body}");
    let again = (
        body["token"].as_str().expect("a token").to_owned(),
        String::new(),
    );
    assert_eq!(starts(&again), 202);
    // And once more: what came after the first one ends with the second.
    home.ok(&["user", "logout", "alice"], "");
    eventually("again", || (starts(&again) == 401).then_some(()));
    assert_eq!(
        fs::read_to_string(home.path("logouts"))
            .unwrap()
            .lines()
            .count(),
        1
    );
    assert!(
        home.refused(&["user", "logout", "carol"], "")
            .contains("carol is not in")
    );
}

#[test]
fn config_check_names_the_lines_that_let_nobody_in() {
    let home = Home::new("");
    home.add_user("alice", "secret");
    let good = fs::read_to_string(home.path("htpasswd")).unwrap();
    fs::write(
        home.path("htpasswd"),
        format!("{good}bob:{{SHA}}xxxx\ncarol\n"),
    )
    .unwrap();
    fs::write(home.path("groups"), "team: alice\nnonsense\n").unwrap();
    fs::write(
        home.path("robots"),
        "ci sha256=00 allow=pull repositories=a\n",
    )
    .unwrap();
    let check = || {
        let output = Command::new(env!("CARGO_BIN_EXE_registry"))
            .args(["config", "check"])
            .arg(home.path("config.yml"))
            .output()
            .expect("the binary starts");
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.success(), text.concat())
    };
    let (is_good, text) = check();
    assert!(is_good, "it can be served with: {text}");
    for line in ["htpasswd:2: ", "htpasswd:3: ", "groups:2: ", "robots:1: "] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(
        text.contains("SHA-1") && text.contains("with 4 warnings"),
        "{text}"
    );
    fs::remove_file(home.path("groups")).unwrap();
    fs::create_dir(home.path("groups")).unwrap();
    let (is_good, text) = check();
    assert!(!is_good && text.contains("groups"), "{text}");
}
