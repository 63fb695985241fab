//! The binary's other commands, told of a server by its config.

use std::process::{Command, Output};

use super::server::Server;

impl Server {
    /// `registry ARGS`, with this server's config where the command takes it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
        command.args(args);
        // Distribution's words: it is an argument.
        if args[0] != "garbage-collect" {
            command.arg("--config");
        }
        command.arg(self.config_path());
        command
    }

    /// How `registry ARGS` ends.
    pub(crate) fn output_of(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it starts")
    }

    /// What `registry ARGS` prints. It has to succeed.
    #[track_caller]
    pub(crate) fn told(&self, args: &[&str]) -> String {
        let output = self.output_of(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Why `registry ARGS` fails. It has to.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.output_of(args);
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Garbage goes when it is told to, and then at once.
    pub(crate) fn collects_when_told(self) -> Self {
        self.set("gc.grace", "0s")
            .set("gc.interval", "1000h")
            .set("gc.delay", "1000h")
    }
}
