//! [`JournalExt`]: what can be done with every journal.

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use crate::{Journal, JournalError, RunFilter, RunSummary};

/// What can be done with every journal.
pub trait JournalExt: Journal {
    /// Lists runs by their ids, page after page; the filter says where to begin, which, and how large a page is.
    ///
    /// A run that begins or is removed meanwhile may be among them or not.
    ///
    /// # Errors
    ///
    /// The stream ends with the first error of [`Journal::runs`].
    fn all_runs(&self, filter: RunFilter) -> BoxStream<'_, Result<RunSummary, JournalError>> {
        let pages = stream::try_unfold(Some(filter), move |filter| async move {
            let Some(mut filter) = filter else { return Ok(None) };
            let page = self.runs(&filter).await?;
            filter.after = page.last().map(|run| run.run.clone());
            let is_last = page.is_empty() || page.len() < filter.bounded_limit();
            let page = stream::iter(page.into_iter().map(Ok));
            Ok::<_, JournalError>(Some((page, (!is_last).then_some(filter))))
        });
        pages.try_flatten().boxed()
    }
}

impl<J: Journal + ?Sized> JournalExt for J {}
