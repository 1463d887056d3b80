//! How far it is: a bar on a terminal, else a line for each tenth.

use std::{
    io::IsTerminal as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::seal::Watch;

const PARTS: u64 = 10;

pub struct Progress {
    /// None: no terminal.
    bar: Option<ProgressBar>,
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = "{bar:30} {percent:>3} %  {pos} of {len}  [{elapsed_precise}, {eta} to go]";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, total: AtomicU64::new(0), done: AtomicU64::new(0) }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Progress {
    fn begins(&self, rows: u64) {
        self.total.store(rows, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.set_length(rows),
            None => println!("to encrypt: {rows}"),
        }
    }

    fn moves(&self, rows: u64) {
        let before = self.done.fetch_add(rows, Ordering::Relaxed);
        let (done, total) = (before + rows, self.total.load(Ordering::Relaxed).max(1));
        match &self.bar {
            Some(bar) => bar.inc(rows),
            None if done * PARTS / total > before * PARTS / total => println!("{done} of {total}"),
            None => {}
        }
    }
}
