//! `Debug` for the messages with secret fields: it leaves those out. `generate` does not derive it for them.

use std::fmt;

use crate::proto;

macro_rules! redact {
    ($($message:ident { $($public:ident),* })*) => {
        $(impl fmt::Debug for proto::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($public), &self.$public))*.finish_non_exhaustive()
            }
        })*
    };
}

redact! {
    SignInConsumerRequest { account }
    SignInConsumerResponse { expire_time, consumer_id }
    RenewConsumerRequest { account }
    RenewConsumerResponse { expire_time, consumer_id }
    PasswordCredentials { username }
    BotKeys { username }
    SignInAgentResponse { expire_time, agent_id }
}

impl fmt::Debug for proto::sign_in_consumer_request::Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous(_) => "Anonymous",
            Self::SignUp(_) => "SignUp",
            Self::CustomerJwt(_) => "CustomerJwt",
            Self::AuthCode(_) => "AuthCode",
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::{sign_in_agent_request::Credentials, sign_in_consumer_request::Grant, *};

    #[test]
    fn secrets_do_not_print() {
        let hidden = || "hidden".to_owned();
        let credentials = Credentials::Password(PasswordCredentials { username: "u".to_owned(), password: hidden() });
        let text = format!(
            "{:?} {:?} {:?} {:#?}",
            SignInConsumerRequest { account: "a".to_owned(), grant: Some(Grant::CustomerJwt(hidden())) },
            SignInConsumerResponse { consumer_token: hidden(), renewal_secret: hidden(), ..Default::default() },
            SignInAgentResponse { agent_token: hidden(), ..Default::default() },
            SignInAgentRequest { account: "a".to_owned(), credentials: Some(credentials) },
        );
        assert!(!text.contains("hidden"), "{text}");
    }
}
