//! Many new rows of one table in one statement.
//!
//! Rows that come in the order of their keys are appended: within one statement SQLite finds the place of the next row beside
//! the last one, where a statement for each begins at the root of every index.

use rusqlite::{Statement, ToSql};

use crate::{
    failure::{Failure, Outcome},
    tx::Tx,
};

/// Rows of one statement. What is left over goes into the next smaller one.
const SIZES: [usize; 3] = [32, 8, 1];

/// How rows of a table are inserted.
pub(crate) struct Insert {
    /// For so many rows.
    texts: [(usize, String); SIZES.len()],
}

impl Insert {
    /// `into` is the statement up to `VALUES`, which are so many in a row. Best `INSERT OR FAIL`: a statement that takes back
    /// what it wrote where a row is refused copies each page before; and a job that fails is taken back as a whole. (Of a full disk it is the whole transaction.)
    pub(crate) fn new(into: &str, columns: usize) -> Self {
        let row = format!("({})", vec!["?"; columns].join(", "));
        Self { texts: SIZES.map(|size| (size, format!("{into} VALUES {}", vec![row.as_str(); size].join(", ")))) }
    }
}

/// The values of rows, bound one after the other.
pub(crate) struct Values<'s, 'c> {
    statement: &'s mut Statement<'c>,
    bound: usize,
}

impl Values<'_, '_> {
    /// The next one.
    pub(crate) fn bind(&mut self, value: impl ToSql) -> Outcome<()> {
        self.bound += 1;
        Ok(self.statement.raw_bind_parameter(self.bound, value)?)
    }
}

impl Tx<'_> {
    /// Inserts rows; `bind` binds the values of one.
    pub(crate) fn insert<R>(
        &self,
        insert: &'static Insert,
        rows: &[R],
        bind: impl Fn(&R, &mut Values<'_, '_>) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut rest = rows;
        for (size, text) in &insert.texts {
            while let Some((now, later)) = rest.split_at_checked(*size) {
                rest = later;
                self.statements.with(text, |statement| {
                    let mut values = Values { statement, bound: 0 };
                    for row in now {
                        bind(row, &mut values)?;
                    }
                    let Values { statement, bound } = values;
                    if bound != statement.parameter_count() {
                        return Err(Failure::internal("as many values as columns were expected"));
                    }
                    let inserted = statement.raw_execute();
                    // What was bound is a copy, and the statement is kept.
                    statement.clear_bindings();
                    Ok(inserted?)
                })?;
            }
        }
        Ok(())
    }
}
