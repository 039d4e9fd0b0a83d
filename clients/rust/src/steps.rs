use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Steps runs one asynchronous step of a state after another, for types that implement a stream by hand. A step that is not awaited to
/// its end is continued by the next poll, so streams are safe to use in `select!`.
pub(crate) enum Steps<S, T> {
    Idle(S),
    Running(Pin<Box<dyn Future<Output = (S, T)> + Send>>),
    /// The state is lost: a step has panicked.
    Lost,
}

impl<S, T> Steps<S, T> {
    /// Polls the running step, or begins one.
    pub fn poll<F>(&mut self, cx: &mut Context<'_>, begin: impl FnOnce(S) -> F) -> Poll<T>
    where
        F: Future<Output = (S, T)> + Send + 'static,
    {
        let mut step = match std::mem::replace(self, Self::Lost) {
            Self::Idle(state) => Box::pin(begin(state)),
            Self::Running(step) => step,
            Self::Lost => panic!("polled after a panic"),
        };
        let poll = step.as_mut().poll(cx);
        if poll.is_pending() {
            *self = Self::Running(step);
        }
        let (state, value) = ready!(poll);
        *self = Self::Idle(state);
        Poll::Ready(value)
    }

    /// Returns the state while no step runs.
    pub fn idle(&self) -> Option<&S> {
        match self {
            Self::Idle(state) => Some(state),
            _ => None,
        }
    }
}
