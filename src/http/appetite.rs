//! Whether the bodies that come on a connection are wanted: what is not wanted yet stays with the client, not in memory here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Of a connection; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Appetite(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How often a body was wanted.
    wants: Cell<u32>,
    /// Bodies that will be, and those that are.
    waiting: Cell<u32>,
    eating: Cell<u32>,
    /// Bytes that came, and that nobody has taken.
    unread: Cell<u64>,
    is_malformed: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

impl Appetite {
    /// A body that may come, and is not wanted yet.
    pub(super) fn serve(&self) -> Helping {
        self.0.waiting.set(self.0.waiting.get() + 1);
        Helping {
            appetite: self.clone(),
            is_wanted: false,
        }
    }

    /// Changes when a body is wanted.
    pub(super) fn wants(&self) -> u32 {
        self.0.wants.get()
    }

    /// So many bytes of bodies came.
    pub(super) fn arrived(&self, bytes: u64) {
        self.0.unread.set(self.0.unread.get() + bytes);
    }

    /// Every body waits, and has more than `limit` bytes here together with the others.
    pub(super) fn is_spoiled(&self, limit: u64) -> bool {
        self.0.waiting.get() > 0 && self.0.eating.get() == 0 && self.0.unread.get() > limit
    }

    /// The body that comes cannot be read on.
    pub(super) fn set_malformed(&self) {
        self.0.is_malformed.set(true);
    }

    /// To be woken when something changes.
    pub(super) fn wait(&self, cx: &mut Context<'_>) {
        *self.0.reader.borrow_mut() = Some(cx.waker().clone());
    }

    /// Wakes who waits.
    pub(super) fn changed(&self) {
        let reader = self.0.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The body of one request.
#[derive(Debug)]
pub(crate) struct Helping {
    appetite: Appetite,
    is_wanted: bool,
}

impl Helping {
    /// From now on.
    pub(super) fn want(&mut self) {
        if std::mem::replace(&mut self.is_wanted, true) {
            return;
        }
        let inner = &self.appetite.0;
        inner.wants.set(inner.wants.get().wrapping_add(1));
        inner.waiting.set(inner.waiting.get() - 1);
        inner.eating.set(inner.eating.get() + 1);
        self.appetite.changed();
    }

    pub(super) fn taken(&self, bytes: usize) {
        let unread = &self.appetite.0.unread;
        unread.set(unread.get().saturating_sub(bytes as u64));
    }

    pub(super) fn is_malformed(&self) -> bool {
        self.appetite.0.is_malformed.get()
    }
}

impl Drop for Helping {
    fn drop(&mut self) {
        let inner = &self.appetite.0;
        let of = if self.is_wanted {
            &inner.eating
        } else {
            &inner.waiting
        };
        of.set(of.get() - 1);
        // What nobody took of a body that is over is gone.
        if inner.waiting.get() + inner.eating.get() == 0 {
            inner.unread.set(0);
        }
        self.appetite.changed();
    }
}
