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

/// A handler that is polled when its own waker was called, and once at first.
#[derive(Debug)]
pub struct WhenWoken<F> {
    handler: F,
    bell: Arc<Bell>,
    /// Rings that bell.
    waker: Waker,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    /// What the handler is a part of.
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

impl<F> WhenWoken<F> {
    /// All that the handler waits for has to call the waker that it is polled with, as every future shall.
    pub fn new(handler: F) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { handler, waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl<F: Future + Unpin> Future for WhenWoken<F> {
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
    use std::{
        future::poll_fn,
        sync::{atomic::AtomicUsize, mpsc},
        thread,
    };

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_handler_is_polled_when_it_was_woken_itself() {
        let (tell, told) = mpsc::channel();
        let mut polls = 0;
        let mut handler = WhenWoken::new(poll_fn(move |cx| {
            tell.send(cx.waker().clone()).unwrap();
            polls += 1;
            if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
        }));
        let mut poll = |cx: &mut Context<'_>| Pin::new(&mut handler).poll(cx);
        assert!(poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let own = told.try_recv().unwrap();

        // The task is another one from now on, and is woken for others.
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..5 {
            assert!(poll(&mut cx).is_pending());
        }
        assert!(told.try_recv().is_err(), "it was polled for others");
        own.wake_by_ref();
        own.wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1, "the task is woken once for one poll");
        assert!(poll(&mut cx).is_pending());
        let own = told.try_recv().unwrap();
        assert!(poll(&mut cx).is_pending());
        own.wake();
        assert_eq!(poll(&mut cx), Poll::Ready(3));
    }

    /// Woken by another thread at any moment of a poll, it is polled again.
    #[test]
    fn no_wake_is_lost() {
        const WAKES: usize = 20_000;
        let (ask, asked) = mpsc::channel::<Waker>();
        let rung = Arc::new(AtomicUsize::new(0));
        let rings = Arc::clone(&rung);
        let ringer = thread::spawn(move || {
            for waker in asked {
                rings.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        });
        let mut polls = 0;
        let handler = WhenWoken::new(poll_fn(move |cx| {
            // Each ring brings a poll, which asks for the next.
            if polls == WAKES {
                return Poll::Ready(());
            }
            polls += 1;
            ask.send(cx.waker().clone()).unwrap();
            Poll::Pending
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ended = runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(60), handler).await });
        assert!(ended.is_ok(), "a wake was lost after {}", rung.load(Ordering::Relaxed));
        ringer.join().unwrap();
        assert_eq!(rung.load(Ordering::Relaxed), WAKES);
    }
}
