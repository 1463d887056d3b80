//! The Lua scripts, and calling them: a batch is one pipeline of a few calls, each for many keys, or for many entries of one.
//!
//! The keys of a call lie anywhere, so this is for one Redis (with replicas, if you like), not for Redis Cluster.

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Script, ServerErrorKind, aio::MultiplexedConnection};

/// Keys per call, or entries of one: a script holds up everybody else for so long.
pub(crate) const ENTRIES_PER_CALL: usize = 256;

/// All scripts.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) take_tokens: Script,
    pub(crate) be_present: Script,
    pub(crate) claim: Script,
    pub(crate) renew: Script,
    pub(crate) release: Script,
    pub(crate) slots: Script,
    pub(crate) change: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            take_tokens: Script::new(include_str!("lua/take_tokens.lua")),
            be_present: Script::new(include_str!("lua/be_present.lua")),
            claim: Script::new(include_str!("lua/claim.lua")),
            renew: Script::new(include_str!("lua/renew.lua")),
            release: Script::new(include_str!("lua/release.lua")),
            slots: Script::new(include_str!("lua/slots.lua")),
            change: Script::new(include_str!("lua/change.lua")),
        }
    }
}

impl Scripts {
    /// Hands all of them to Redis.
    pub(crate) async fn load(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let Self { take_tokens, be_present, claim, renew, release, slots, change } = self;
        for script in [take_tokens, be_present, claim, renew, release, slots, change] {
            script.load_async(connection).await?;
        }
        Ok(())
    }

    /// Calls one of them for a batch and returns its answers, joined.
    pub(crate) async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        script: &Script,
        batch: &Batch,
    ) -> Result<Vec<i64>, RedisError> {
        Ok(self.run(connection, &batch.pipeline(script)).await?.concat())
    }

    /// Makes calls of scripts and returns the answers of each. A Redis that has forgotten its scripts (restart, `SCRIPT FLUSH`)
    /// gets them again.
    pub(crate) async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        calls: &Pipeline,
    ) -> Result<Vec<Vec<i64>>, RedisError> {
        match calls.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.load(connection).await?;
                calls.query_async(connection).await
            }
            other => other,
        }
    }
}

/// Keys with their arguments.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    keys: Vec<String>,
    /// The same number for each key.
    per_key: Vec<String>,
    /// For each call, behind those of its keys.
    common: Vec<String>,
}

impl Batch {
    pub(crate) fn new(common: Vec<String>) -> Self {
        Self { common, ..Self::default() }
    }

    pub(crate) fn push(&mut self, key: String, arguments: impl IntoIterator<Item = String>) {
        self.keys.push(key);
        self.per_key.extend(arguments);
    }

    fn pipeline(&self, script: &Script) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let each = self.per_key.len() / self.keys.len().max(1);
        for (number, keys) in self.keys.chunks(ENTRIES_PER_CALL).enumerate() {
            let mut call = Cmd::new();
            call.arg("EVALSHA").arg(script.get_hash()).arg(keys.len()).arg(keys);
            let first = number * ENTRIES_PER_CALL * each;
            call.arg(&self.per_key[first..first + keys.len() * each]).arg(&self.common);
            pipeline.add_command(call);
        }
        pipeline
    }
}
