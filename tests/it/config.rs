//! `registry config check|explain`, through the real binary.

use std::path::PathBuf;
use std::process::{Command, Output};

fn registry(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied());
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct File(tempfile::TempDir);

impl File {
    fn with(content: &str) -> File {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("config.yml"), content).expect("a file in it");
        File(dir)
    }

    fn path(&self) -> String {
        self.0.path().join("config.yml").display().to_string()
    }
}

#[test]
fn no_file_is_the_defaults() {
    let output = registry(&["config", "check"], &[]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "built-in defaults: ok\n");
    assert_eq!(text(&output.stderr), "");
    let output = registry(&["config", "explain"], &[]);
    assert!(output.status.success());
    assert!(
        text(&output.stdout).starts_with("version: 0.1\n"),
        "{}",
        text(&output.stdout)
    );
    assert!(
        text(&output.stdout).lines().any(
            |line| line.trim_start().starts_with("addr: :5000 ") && line.ends_with("# default")
        )
    );
}

#[test]
fn the_variable_of_distribution_names_the_file_where_no_argument_does() {
    let file = File::with("version: 0.1\nhttp: {addr: \":7777\"}\n");
    let path = file.path();
    let named = [("REGISTRY_CONFIGURATION_PATH", &*path)];
    let explained = text(&registry(&["config", "explain"], &named).stdout);
    assert!(explained.contains("addr: :7777 "), "{explained}");
    let output = registry(&["config", "check"], &named);
    assert_eq!(text(&output.stdout), format!("{path}: ok\n"));
    assert_eq!(text(&output.stderr), "");
    let other = File::with("version: 0.1\nhttp: {addr: \":8888\"}\n");
    let explained = registry(&["config", "explain", &other.path()], &named);
    assert!(text(&explained.stdout).contains("addr: :8888 "));
    let missing = [("REGISTRY_CONFIGURATION_PATH", "/nowhere/config.yml")];
    let output = registry(&["config", "check"], &missing);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/nowhere/config.yml"));
}

#[test]
fn an_empty_root_directory_is_refused() {
    let file = File::with("version: 0.1\nstorage: {filesystem: {rootdirectory: \"\"}}\n");
    let output = registry(&["config", "check", &file.path()], &[]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("storage.filesystem.rootdirectory") && said.contains("name the directory"),
        "{said}"
    );
}

#[test]
fn the_packaged_file_is_good_and_has_no_warnings() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/config.yml");
    let output = registry(&["config", "check", &file.display().to_string()], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn every_mistake_is_named_with_its_line_and_the_nearest_key() {
    let file = File::with(
        "version: 0.1\nhttp:\n  tls:\n    certifcate: /x\n  draintimeout: soon\nauth: htpasswd\n",
    );
    let path = file.path();
    for verb in ["check", "explain"] {
        let output = registry(&["config", verb, &path], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        let stderr = text(&output.stderr);
        for expected in [
            format!(
                "error: {path}:4: http.tls.certifcate: unknown key; did you mean `certificate`?"
            ),
            format!("error: {path}:5: http.draintimeout: "),
            format!("error: {path}:6: auth.htpasswd.realm: is missing: "),
        ] {
            assert!(stderr.contains(&expected), "{expected}\n{stderr}");
        }
    }
}

#[test]
fn a_missing_file_is_no_empty_one() {
    let output = registry(&["config", "check", "/nonexistent/config.yml"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("/nonexistent/config.yml: cannot be read"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn warnings_do_not_fail() {
    let file =
        File::with("version: 0.1\npolicy: {repository: {classes: [image]}}\nredis: {addrs: [a]}\n");
    let path = file.path();
    let output = registry(
        &["config", "check", &path],
        &[("REGISTRY_PORT", "tcp://10.0.0.1:5000")],
    );
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        format!("{path}: ok, with 2 warnings\n")
    );
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains(&format!("warning: {path}:2: policy: has no effect: ")),
        "{stderr}"
    );
    assert!(
        stderr.contains(&format!("note: {path}:3: redis: has no effect: ")),
        "{stderr}"
    );
    assert!(
        stderr.contains("warning: REGISTRY_PORT: ignored: "),
        "{stderr}"
    );
}

#[test]
fn explain_says_where_each_value_is_from_and_hides_secrets() {
    let file = File::with(
        "version: 0.1\nhttp:\n  addr: 127.0.0.1:5000\n  secret: hunter2\nstorage:\n  cache: {blobdescriptor: redis}\n",
    );
    let path = file.path();
    let variables = [
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/mnt/disk"),
        (
            "REGISTRY_STORAGE_MAINTENANCE_READONLY",
            "{\"enabled\": true}",
        ),
    ];
    let output = registry(&["config", "explain", &path], &variables);
    assert!(output.status.success());
    let stdout = text(&output.stdout);
    let line = |start: &str| {
        let found = stdout
            .lines()
            .find(|line| line.trim_start().starts_with(start));
        found
            .unwrap_or_else(|| panic!("{start} in\n{stdout}"))
            .to_owned()
    };
    assert!(line("addr: 127.0.0.1:5000").ends_with(&format!("# {path}:3")));
    assert!(line("secret: (set)").ends_with(&format!("# {path}:4")));
    assert!(
        line("rootdirectory: /mnt/disk").ends_with("# REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY")
    );
    assert!(line("enabled: true  ").ends_with("# default"));
    assert!(
        stdout.contains("# REGISTRY_STORAGE_MAINTENANCE_READONLY\n"),
        "{stdout}"
    );
    assert!(line("# cache: has no effect: ").ends_with(&format!("({path}:6)")));
    assert!(!stdout.contains("hunter2"), "{stdout}");
}

#[test]
fn a_quota_and_a_peer_are_whole_or_refused() {
    let file = File::with(
        "version: 0.1\nquota:\n  - {repositories: ['team/**', app], size: 20GB}\n  - {repositories: 'TEAM', size: 1GB}\n  - {size: 5GB}\n  \
         - {repositories: x}\nscrub:\n  peers:\n    - {remoteurl: https://other:5000, username: me, password: change-me}\n    \
         - {username: me}\n",
    );
    let output = registry(&["config", "check", &file.path()], &[]);
    assert!(!output.status.success());
    let told = text(&output.stderr);
    for part in [
        "quota[1].repositories",
        "lowercase letters",
        "quota[2].repositories: is missing",
        "quota[3].size: is missing",
        "scrub.peers[1].remoteurl: expected a URL",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(
        !told.contains("quota[0]") && !told.contains("peers[0]"),
        "{told}"
    );
    let file = File::with(
        "version: 0.1\nquota: [{repositories: team/**, size: 20GB}]\nscrub: {peers: [{remoteurl: https://other:5000, password: change-me}]}\n",
    );
    let output = registry(&["config", "explain", &file.path()], &[]);
    let told = text(&output.stdout);
    assert!(told.contains("repositories: [team/**]"), "{told}");
    assert!(
        told.contains("remoteurl: https://other:5000") && !told.contains("change-me"),
        "{told}"
    );
}
