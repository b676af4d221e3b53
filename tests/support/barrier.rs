//! A place where handlers wait, as one that hangs does.

use std::sync::{Arc, Condvar, Mutex};

/// Handlers wait in front of it while it is shut; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    pub(crate) fn set(&self, shut: bool) {
        *self.0.0.lock().unwrap() = shut;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(shut, |shut| *shut).unwrap());
    }
}
