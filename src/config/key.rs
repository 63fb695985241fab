//! What the table of keys is made of.

use super::Config;
use super::slot::Slot;

/// One key of the file. Reading, `REGISTRY_*`, "did you mean" and `config explain` all work on these.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The name of distribution's Go field in lower case, where it is not the key's: variables may use either.
    pub(crate) field: &'static str,
    /// Understood, and shown only where it is used.
    pub(crate) old: bool,
    pub(crate) shape: Shape,
}

/// The place of a setting; the number is the index of the list item around it. None while its section is not there.
pub(crate) type At = for<'a> fn(&'a mut Config, usize) -> Option<Slot<'a>>;

pub(crate) enum Shape {
    /// One value.
    Value(At),
    /// Names of the user's own, each with a value: headers, log fields.
    Names(At),
    Section(Section),
    /// A section where the presence of a key selects a type, and a bare word stands for that key: `auth: none`.
    /// `neutral` are the keys that are no types.
    Types {
        section: Section,
        neutral: &'static [&'static str],
    },
    /// A list of sections.
    Items {
        keys: &'static [Key],
        len: fn(&Config) -> usize,
        grow: fn(&mut Config),
    },
    /// Taken without effect, with everything below.
    Ignored {
        importance: Importance,
        reason: &'static str,
    },
    /// Not taken, with everything below.
    Refused {
        reason: &'static str,
        next: &'static str,
    },
}

pub(crate) struct Section {
    pub(crate) keys: &'static [Key],
    /// Called when the section is there, also when it is empty.
    pub(crate) enter: Option<fn(&mut Config)>,
}

/// How much it matters that a key has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Importance {
    /// Nothing is lost.
    Info,
    /// Somebody may be waiting for its effect.
    Warning,
}

impl Key {
    /// The keys below this one.
    pub(crate) fn keys(&self) -> &'static [Key] {
        match &self.shape {
            Shape::Section(section) | Shape::Types { section, .. } => section.keys,
            Shape::Items { keys, .. } => keys,
            Shape::Value(_) | Shape::Names(_) | Shape::Ignored { .. } | Shape::Refused { .. } => {
                &[]
            }
        }
    }

    pub(crate) const fn field(mut self, field: &'static str) -> Key {
        self.field = field;
        self
    }

    pub(crate) const fn old(mut self) -> Key {
        self.old = true;
        self
    }

    const fn new(name: &'static str, shape: Shape) -> Key {
        Key {
            name,
            field: name,
            old: false,
            shape,
        }
    }
}

pub(crate) const fn value(name: &'static str, at: At) -> Key {
    Key::new(name, Shape::Value(at))
}

pub(crate) const fn names(name: &'static str, at: At) -> Key {
    Key::new(name, Shape::Names(at))
}

pub(crate) const fn section(name: &'static str, keys: &'static [Key]) -> Key {
    Key::new(name, Shape::Section(Section { keys, enter: None }))
}

pub(crate) const fn entered(
    name: &'static str,
    keys: &'static [Key],
    enter: fn(&mut Config),
) -> Key {
    Key::new(
        name,
        Shape::Section(Section {
            keys,
            enter: Some(enter),
        }),
    )
}

pub(crate) const fn types(
    name: &'static str,
    keys: &'static [Key],
    neutral: &'static [&'static str],
) -> Key {
    Key::new(
        name,
        Shape::Types {
            section: Section { keys, enter: None },
            neutral,
        },
    )
}

pub(crate) const fn items(
    name: &'static str,
    keys: &'static [Key],
    len: fn(&Config) -> usize,
    grow: fn(&mut Config),
) -> Key {
    Key::new(name, Shape::Items { keys, len, grow })
}

pub(crate) const fn ignored(name: &'static str, reason: &'static str) -> Key {
    Key::new(
        name,
        Shape::Ignored {
            importance: Importance::Info,
            reason,
        },
    )
}

pub(crate) const fn warned(name: &'static str, reason: &'static str) -> Key {
    Key::new(
        name,
        Shape::Ignored {
            importance: Importance::Warning,
            reason,
        },
    )
}

pub(crate) const fn refused(name: &'static str, reason: &'static str, next: &'static str) -> Key {
    Key::new(name, Shape::Refused { reason, next })
}
