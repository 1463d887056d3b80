//! What a scenario has created in a Signalpost that runs already, so that it is deleted when the scenario has ended: else the
//! next one's events would go to its destinations, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Paths of the API, in the order in which they were created. Cloning gives another handle.
#[derive(Debug, Clone, Default)]
pub struct Created(Arc<Mutex<Vec<String>>>);

impl Created {
    fn paths(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is there.
    pub fn note(&self, path: String) {
        self.paths().push(path);
    }

    /// It is gone.
    pub fn forget(&self, path: &str) {
        self.paths().retain(|there| there != path);
    }

    /// All that is there; it is forgotten.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.paths())
    }
}

#[cfg(test)]
mod tests {
    use super::Created;

    #[test]
    fn what_is_gone_is_not_deleted_again() {
        let created = Created::default();
        for path in ["/v1/destinations/1", "/v1/destinations/2", "/v1/tenants/3"] {
            created.clone().note(path.to_owned());
        }
        created.forget("/v1/destinations/2");
        assert_eq!(created.take(), ["/v1/destinations/1", "/v1/tenants/3"]);
        assert!(created.take().is_empty());
    }
}
