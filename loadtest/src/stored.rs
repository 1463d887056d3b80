//! What the store of a Signalpost keeps on disk.

use anyhow::Context as _;
use signalpost_services::Postgres;

use crate::{flow::figure, target::Running};

const MIB: f64 = 1024.0 * 1024.0;

/// What was found at a moment.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// MiB of what it consists of: files, or tables and indexes. Empty where nothing is known of it.
    pub mib: Vec<(&'static str, f64)>,
    /// Rows that are deleted or changed and not cleared away, where the store has such.
    pub dead_tuples: Option<f64>,
}

/// Looks. It blocks for as long as the store takes to say.
///
/// # Errors
/// The store does not say, or its files cannot be looked at.
pub fn stored(running: &Running) -> anyhow::Result<Stored> {
    match running {
        Running::Standalone(standalone) => {
            let files = standalone.files()?;
            Ok(Stored {
                mib: files.into_iter().map(|(name, bytes)| (name, figure(bytes) / MIB)).collect(),
                dead_tuples: None,
            })
        }
        Running::Cluster(cluster) => {
            let [tables, indexes, dead] = sums(&cluster.postgres)?;
            Ok(Stored { mib: vec![("tables", tables / MIB), ("indexes", indexes / MIB)], dead_tuples: Some(dead) })
        }
        Running::Elsewhere => Ok(Stored::default()),
    }
}

/// Bytes of tables (with what is stored apart from their rows, TOAST), bytes of indexes, dead tuples.
fn sums(postgres: &Postgres) -> anyhow::Result<[f64; 3]> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sizes");
    let sql = format!(
        "\\pset format unaligned\n\\pset tuples_only on\n\\pset fieldsep ' '\n\\o {}\n\
         SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid)), sum(n_dead_tup) FROM pg_stat_user_tables;\n",
        file.display()
    );
    postgres.run_sql("postgres", &sql)?;
    let text = std::fs::read_to_string(file)?;
    let mut sums = [0.0; 3];
    for (sum, value) in sums.iter_mut().zip(text.split_whitespace()) {
        *sum = value.parse().with_context(|| format!("the sizes {text:?}"))?;
    }
    Ok(sums)
}
