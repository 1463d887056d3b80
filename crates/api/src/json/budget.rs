//! The memory of all bodies that are being read, together: one client with a key may send many large ones at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// How many bytes of bodies may be held at once. Cloning gives another handle of the same.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Semaphore>);

/// What one request holds of it, until it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: BodyBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Holds nothing yet.
    pub fn hold(&self) -> Held {
        Held { budget: self.clone(), permit: None }
    }
}

impl Held {
    /// Takes so many bytes more, before they are kept.
    ///
    /// # Errors
    /// 503 where other bodies have them.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = u32::try_from(bytes).ok().and_then(|bytes| self.budget.0.clone().try_acquire_many_owned(bytes).ok());
        let more = more.ok_or_else(|| {
            Problem::unavailable("The bodies of other requests fill the memory that there is for them.")
        })?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}
