//! A panic anywhere in a run is a finding, also where somebody catches it.

use std::{
    cell::{Cell, RefCell},
    sync::Once,
};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics of this thread are kept instead of being printed.
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                FIRST.with_borrow_mut(|first| {
                    first.get_or_insert_with(|| format!("a panic: {info}"));
                });
            } else {
                before(info);
            }
        }));
    });
    WATCHED.set(true);
    FIRST.with_borrow_mut(Option::take);
}

/// Panics of this thread are printed again.
pub fn leave() {
    WATCHED.set(false);
}

/// The first panic since the last call.
pub fn take() -> Option<String> {
    FIRST.with_borrow_mut(Option::take)
}
