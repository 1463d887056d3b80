//! A handler that is polled only when it was woken itself.
//!
//! A connection and the handler of its request are one task, so whatever wakes one has the other polled, too. hyper wakes the connection
//! once for each request with a body, when the handler has taken that: there would be room for more, which does not come. All layers
//! around the handler, and the handler, would be gone through for nothing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// Notes who of a connection was woken. One for all of its requests, which come one after the other.
#[derive(Debug)]
pub struct Gate {
    bell: Arc<Bell>,
    /// Rings that bell.
    waker: Waker,
}

#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Gate {
    pub fn new() -> Self {
        let bell = Arc::new(Bell::default());
        Self { waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// The handler of the next request.
    pub fn guard<F>(&self, handler: F) -> Guarded<F> {
        self.bell.rung.store(true, Ordering::Relaxed);
        Guarded { handler, bell: Arc::clone(&self.bell), waker: self.waker.clone() }
    }
}

/// A handler behind a [`Gate`].
#[derive(Debug)]
pub struct Guarded<F> {
    handler: F,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future + Unpin> Future for Guarded<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // Before the look: a bell that is rung after it finds the task.
        this.bell.task.register(cx.waker());
        if !this.bell.rung.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut this.handler).poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use futures::task::{ArcWake, noop_waker_ref, waker};

    use super::*;

    #[derive(Default)]
    struct Task {
        woken: AtomicUsize,
    }

    impl ArcWake for Task {
        fn wake_by_ref(this: &Arc<Self>) {
            this.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_handler_is_polled_when_it_was_woken_itself() {
        let gate = Gate::new();
        let own = Arc::new(AtomicWaker::new());
        for _request in 0..2 {
            let mut polls = 0;
            let registered = Arc::clone(&own);
            let mut handler = gate.guard(poll_fn(move |cx| {
                registered.register(cx.waker());
                polls += 1;
                if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
            }));
            let mut poll = |cx: &mut Context<'_>| Pin::new(&mut handler).poll(cx);
            assert!(poll(&mut Context::from_waker(noop_waker_ref())).is_pending());

            // The task goes on to another thread, and is woken there for others.
            let task = Arc::new(Task::default());
            let task_waker = waker(Arc::clone(&task));
            let mut cx = Context::from_waker(&task_waker);
            for _others in 0..5 {
                assert!(poll(&mut cx).is_pending());
            }
            own.wake();
            own.wake();
            assert_eq!(task.woken.load(Ordering::Relaxed), 1);
            assert!(poll(&mut cx).is_pending());
            assert!(poll(&mut cx).is_pending());
            own.wake();
            assert_eq!(poll(&mut cx), Poll::Ready(3), "polled three times, as it was woken");
        }
    }
}
