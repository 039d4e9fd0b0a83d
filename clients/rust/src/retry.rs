//! The retry rule of the contract: see the comment of `ErrorReason`.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Code, ConnectError, Status};

use crate::{
    call::Attempt,
    error::{CallError, Error, Result},
    proto::ErrorReason,
};

/// How long transfers are retried if the caller does not say, and how long they wait for a connection.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(120);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Failure is the end of one attempt without a result.
pub(crate) enum Failure {
    /// The status of the call.
    Status(Status),
    /// There was no connection, so nothing was sent.
    Unreached(Status),
    /// Bytes were damaged or lost between server and client. Another attempt may succeed.
    Damaged(String),
    /// The server does not follow the contract.
    Violation(String),
    /// The source, the sink or the token source of the caller failed.
    Own(Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let mut cause = std::error::Error::source(&status);
        while let Some(e) = cause {
            if e.is::<ConnectError>() {
                return Self::Unreached(status);
            }
            cause = e.source();
        }
        Self::Status(status)
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Own(e)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Report the error.
    Final,
    /// Repeat the call, or continue it.
    Repeat,
    /// The same, but at most two tries in all.
    RepeatOnce,
}

/// Applies the rule to the answer of a call. Its first step is the caller's: the call was not cancelled, and its deadline has not
/// passed. Which conditions of the server are repeatable is the server's decision alone: it adds `RetryInfo` to them.
fn judge(e: &CallError) -> Verdict {
    if !e.reason_name.is_empty() {
        return if e.retry_after.is_some() { Verdict::Repeat } else { Verdict::Final };
    }
    match e.code {
        Code::Unavailable | Code::Cancelled | Code::Unknown => Verdict::Repeat, // the connection broke
        Code::Internal => Verdict::RepeatOnce,                                  // the same, or a proxy that rejects the request
        _ => Verdict::Final,
    }
}

/// Pacer decides whether and when a call that failed is made again. It serves one operation.
pub(crate) struct Pacer {
    op: String,
    /// How long after the beginning, or the last progress, an attempt may begin. Zero: one attempt only.
    limit: Duration,
    max_attempts: u32,
    /// false: only repeated if nothing was sent.
    repeatable: bool,
    since: Instant,
    next_delay: Duration,
    attempts: u32,
    /// The number of INTERNAL errors without `ErrorInfo` since the last progress.
    internal: u32,
    /// The token was renewed since the last progress.
    renewed: bool,
}

/// Next is a failed attempt that another one may follow.
pub(crate) struct Next {
    pub error: CallError,
    how: How,
}

enum How {
    /// At once: the token is a new one, or another server can be tried.
    Now,
    /// After the backoff, and at least the delay that the server asked for.
    Later { unreached: bool },
}

impl Pacer {
    pub fn new(op: impl Into<String>, limit: Duration) -> Self {
        Self {
            op: op.into(),
            limit,
            max_attempts: u32::MAX,
            repeatable: true,
            since: Instant::now(),
            next_delay: FIRST_DELAY,
            attempts: 0,
            internal: 0,
            renewed: false,
        }
    }

    pub fn max_attempts(mut self, n: u32) -> Self {
        self.max_attempts = n;
        self
    }

    pub fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    /// Counts an attempt.
    pub fn begin(&mut self) {
        self.attempts += 1;
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Resets the time limit, the backoff and the counters.
    pub fn progress(&mut self) {
        self.since = Instant::now();
        self.next_delay = FIRST_DELAY;
        self.internal = 0;
        self.renewed = false;
    }

    /// Returns the error of an operation whose time limit has passed.
    pub fn deadline(&self) -> Error {
        let mut e = CallError::new(&self.op, Code::DeadlineExceeded, "the time limit of the call has passed");
        e.attempts = self.attempts;
        e.into()
    }

    /// Returns whether another attempt may follow a failed one. An error is the one to report. It renews a rejected token, once.
    pub async fn next(&mut self, failure: Failure, attempt: &Attempt) -> Result<Next> {
        let mut unreached = false;
        let (mut error, mut verdict) = match failure {
            Failure::Own(e) => return Err(e),
            Failure::Status(status) => {
                let e = CallError::from_status(&self.op, &status);
                let verdict = judge(&e);
                (e, verdict)
            }
            Failure::Unreached(status) => {
                unreached = true;
                let e = CallError::from_status(&self.op, &status);
                // A wrong certificate does not become right by waiting.
                let verdict = if e.message.contains("invalid peer certificate") { Verdict::Final } else { Verdict::Repeat };
                (e, verdict)
            }
            Failure::Damaged(text) => (CallError::new(&self.op, Code::DataLoss, text), Verdict::Repeat),
            Failure::Violation(text) => (CallError::new(&self.op, Code::DataLoss, text), Verdict::Final),
        };
        if unreached {
            self.attempts -= 1; // nothing was sent
        } else if !self.repeatable {
            verdict = Verdict::Final;
        }
        error.attempts = self.attempts;
        let other = attempt.failed(unreached || error.reason == ErrorReason::ServerDraining);

        if !self.renewed && matches!(error.reason, ErrorReason::TokenInvalid | ErrorReason::LpIdentityExpired) {
            self.renewed = attempt.renew().await;
            if self.renewed {
                return Ok(Next { error, how: How::Now });
            }
        }
        if verdict == Verdict::RepeatOnce {
            self.internal += 1;
        }
        if verdict == Verdict::Final || self.internal > 1 {
            return Err(error.into());
        }
        let how = if unreached && other { How::Now } else { How::Later { unreached } };
        Ok(Next { error, how })
    }

    /// Waits until the next attempt may begin. If there is none, it returns the error with the reason.
    pub async fn wait(&mut self, next: Next) -> Result<()> {
        sleep(self.delay(next)?).await;
        Ok(())
    }

    fn delay(&mut self, next: Next) -> Result<Duration> {
        let How::Later { unreached } = next.how else { return Ok(Duration::ZERO) };
        let mut delay = self.next_delay.mul_f64(0.5 + fastrand::f64());
        self.next_delay = (self.next_delay * 2).min(MAX_DELAY);
        if let Some(asked) = next.error.retry_after.filter(|asked| *asked > delay) {
            delay = asked.mul_f64(1.0 + 0.2 * fastrand::f64()); // spreads callers that got the same delay
        }
        let once = self.limit.is_zero();
        if once && !unreached {
            return Err(next.error.not_repeated("retries are disabled"));
        }
        if self.attempts >= self.max_attempts {
            return Err(next.error.not_repeated(format!("the limit is {} attempts", self.max_attempts)));
        }
        let limit = if once { RETRY_FOR } else { self.limit };
        if self.since.elapsed() + delay > limit {
            let why = format!("the next attempt would begin more than {limit:?} after the start or the last progress");
            return Err(next.error.not_repeated(why));
        }
        Ok(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule() {
        let mut e = CallError::new("upload", Code::Unavailable, "");
        e.reason_name = "LP_TIMEOUT".to_owned();
        assert_eq!(judge(&e), Verdict::Final, "ErrorInfo without RetryInfo");
        e.retry_after = Some(Duration::ZERO);
        assert_eq!(judge(&e), Verdict::Repeat, "ErrorInfo with RetryInfo");
        for (code, verdict) in [
            (Code::Unavailable, Verdict::Repeat),
            (Code::Cancelled, Verdict::Repeat),
            (Code::Unknown, Verdict::Repeat),
            (Code::Internal, Verdict::RepeatOnce),
            (Code::Aborted, Verdict::Final),
            (Code::ResourceExhausted, Verdict::Final),
            (Code::Unimplemented, Verdict::Final),
            (Code::DeadlineExceeded, Verdict::Final),
        ] {
            assert_eq!(judge(&CallError::new("upload", code, "")), verdict, "{code:?} without ErrorInfo");
        }
    }

    fn later(retry_after: Option<Duration>) -> Next {
        let mut error = CallError::new("upload", Code::ResourceExhausted, "");
        error.retry_after = retry_after;
        Next { error, how: How::Later { unreached: false } }
    }

    #[test]
    fn delays_grow_and_are_at_least_what_the_server_asks() {
        let mut pacer = Pacer::new("upload", RETRY_FOR);
        let asked = Duration::from_secs(7);
        assert!((asked..asked.mul_f64(1.21)).contains(&pacer.delay(later(Some(asked))).unwrap()));
        for _ in 0..9 {
            assert!(pacer.delay(later(None)).unwrap() <= MAX_DELAY.mul_f64(1.5));
        }
        assert!(pacer.delay(later(None)).unwrap() >= MAX_DELAY.mul_f64(0.5));
        pacer.progress();
        assert!(pacer.delay(later(None)).unwrap() <= FIRST_DELAY.mul_f64(1.5));
    }

    #[test]
    fn patience_ends() {
        let mut pacer = Pacer::new("upload", Duration::from_secs(10));
        let e = pacer.delay(later(Some(Duration::from_secs(11)))).unwrap_err();
        assert!(e.to_string().contains("not repeated: the next attempt would begin more than 10s"), "{e}");
        let mut once = Pacer::new("upload", Duration::ZERO);
        assert!(once.delay(later(None)).unwrap_err().to_string().contains("retries are disabled"));
        let mut few = Pacer::new("StatFile", RETRY_FOR).max_attempts(1);
        few.begin();
        assert!(few.delay(later(None)).unwrap_err().to_string().contains("the limit is 1 attempts"));
    }
}
