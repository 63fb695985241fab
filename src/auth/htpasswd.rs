//! The files of users and groups: Apache's `htpasswd` and `AuthGroupFile`.

use std::collections::HashMap;
use std::sync::Arc;

use super::password::PasswordHash;

/// The users with a good hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Users(HashMap<Arc<str>, PasswordHash>);

/// A line that lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Users {
    /// `name:hash` a line. A bad one is left out and told of; of several with the same name the last one counts, as in
    /// distribution.
    pub(super) fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut users, mut bad) = (HashMap::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut refuse = |text: String| bad.push(BadLine { line: i + 1, text });
            let Some((name, hash)) = line.split_once(':') else {
                refuse("is not NAME:HASH".to_owned());
                continue;
            };
            if let Err(why) = check_name(name) {
                refuse(why.to_owned());
                continue;
            }
            match PasswordHash::parse(hash) {
                Ok(hash) => {
                    users.insert(Arc::from(name), hash);
                }
                Err(why) => {
                    // An older, good line must not stand in for it.
                    users.remove(name);
                    refuse(format!("the password of {name} {why}"));
                }
            }
        }
        (Users(users), bad)
    }

    pub(super) fn get(&self, name: &str) -> Option<&PasswordHash> {
        self.0.get(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The hash of somebody, always the same one for the same `n`: to take as long for who does not exist.
    pub(super) fn any(&self, n: u64) -> Option<&PasswordHash> {
        let mut names: Vec<_> = self.0.keys().collect();
        names.sort_unstable();
        let at = usize::try_from(n).unwrap_or(0).checked_rem(names.len())?;
        self.0.get(names[at])
    }
}

/// Whether somebody can be called that.
///
/// # Errors
/// Why not.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 255 {
        return Err("a name has 1 to 255 bytes");
    }
    if name.contains(|c: char| c == ':' || c == ',' || c.is_control() || c.is_whitespace()) {
        return Err("a name has no colon, comma, blank or control character");
    }
    if name.starts_with(super::identity::ROBOT_PREFIX) {
        return Err("names that begin with robot+ are those of robots");
    }
    Ok(())
}

/// Which groups each user is in: `team: alice bob` a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups(HashMap<String, Arc<[String]>>);

impl Groups {
    pub(super) fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let mut groups: HashMap<String, Vec<String>> = HashMap::new();
        let mut bad = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(':') {
                Some((group, members)) if check_name(group.trim()).is_ok() => {
                    for member in members.split_whitespace() {
                        let of = groups.entry(member.to_owned()).or_default();
                        of.push(group.trim().to_owned());
                    }
                }
                _ => bad.push(BadLine {
                    line: i + 1,
                    text: "is not GROUP: NAME NAME...".to_owned(),
                }),
            }
        }
        let groups = groups.into_iter();
        (
            Groups(groups.map(|(name, of)| (name, of.into())).collect()),
            bad,
        )
    }

    pub(super) fn of(&self, user: &str) -> Arc<[String]> {
        self.0.get(user).cloned().unwrap_or_default()
    }
}

/// `text` with a line for `name`, in place of the one it had if it had one.
pub(crate) fn with_line(text: &str, name: &str, line: &str) -> String {
    let mut out = without_line(text, name).unwrap_or_else(|| text.to_owned());
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(line);
    out.push('\n');
    out
}

/// `text` without the lines of `name`; none if it has none. A name ends at a colon or a blank.
pub(crate) fn without_line(text: &str, name: &str) -> Option<String> {
    let is_of = |line: &&str| {
        let rest = line.trim_start().strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([':', ' ']))
    };
    if !text.lines().any(|line| is_of(&line)) {
        return None;
    }
    let kept = text.lines().filter(|line| !is_of(line));
    Some(kept.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_bad_lines_and_takes_the_others() {
        let good = bcrypt::hash("a", 4).unwrap();
        let text = format!(
            "# comment\n\nalice:{good}\nbob:{{SHA}}xx\n nothing\ncarol:{good}\ncarol:$apr1$a$b\n robot+x:{good}\ndora:{good}\r\n"
        );
        let (users, bad) = Users::parse(&text);
        assert!(users.contains("alice") && users.contains("dora"));
        assert!(!users.contains("bob") && !users.contains("carol") && !users.contains("robot+x"));
        let lines: Vec<_> = bad.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [4, 5, 7, 8]);
        assert!(bad[0].text.contains("bob") && bad[0].text.contains("SHA-1"));
        assert!(users.any(7).is_some() && Users::default().any(7).is_none());
    }

    #[test]
    fn groups_are_apaches() {
        let (groups, bad) = Groups::parse("# c\nteam: alice bob\nops:alice\nnonsense\n");
        assert_eq!(*groups.of("alice"), ["team".to_owned(), "ops".to_owned()]);
        assert_eq!(*groups.of("bob"), ["team".to_owned()]);
        assert!(groups.of("carol").is_empty());
        assert_eq!(bad[0].line, 4);
    }

    #[test]
    fn lines_are_replaced_whole() {
        let text = "al:1\nalice:2\n# alice:3";
        assert_eq!(with_line(text, "al", "al:9"), "alice:2\n# alice:3\nal:9\n");
        assert_eq!(
            with_line(text, "bob", "bob:9"),
            "al:1\nalice:2\n# alice:3\nbob:9\n"
        );
        assert_eq!(without_line(text, "alice").unwrap(), "al:1\n# alice:3\n");
        assert_eq!(without_line(text, "ali"), None);
    }
}
