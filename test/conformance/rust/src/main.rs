//! The driver of the Rust client: see ../README.md.

mod transfers;
mod values;

use std::{
    collections::HashMap,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use lpfileshare::{Client, ConversationsOptions, Error, Identity, Result, proto};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use values::{describe, enum_name, file, number, text};

#[tokio::main]
async fn main() {
    let driver = Arc::new(Driver::default());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut work = JoinSet::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Value = serde_json::from_str(&line).expect("a command is JSON");
        let stop = CancellationToken::new();
        lock(&driver.running).insert(text(&command["id"]), stop.clone());
        let run = driver.clone().answer(command.clone(), stop);
        // Those that change the table of clients end before the next command is read.
        match command["op"].as_str() {
            Some("open" | "as" | "close" | "cancel") => run.await,
            _ => drop(work.spawn(run)),
        }
        while work.try_join_next().is_some() {}
    }
    lock(&driver.running).values().for_each(CancellationToken::cancel);
    lock(&driver.clients).clear();
    work.join_all().await;
}

#[derive(Clone)]
struct Entry {
    client: Client,
    identity: Identity,
    /// The client that was opened, whose connection this one uses.
    opened: String,
}

#[derive(Default)]
struct Driver {
    clients: Mutex<HashMap<String, Entry>>,
    running: Mutex<HashMap<String, CancellationToken>>,
    /// How the error or result of each command prints.
    printed: Mutex<HashMap<String, Vec<String>>>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

pub fn write(line: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

pub fn event(id: &str, event: Value) {
    write(&json!({"id": id, "event": event}));
}

impl Driver {
    async fn answer(self: Arc<Self>, command: Value, stop: CancellationToken) {
        let id = text(&command["id"]);
        let own = |kind, text| json!({"id": id, "error": {"kind": kind, "code": "", "reason": "", "message": text, "text": text}});
        let answer = match stop.run_until_cancelled(self.timed(&id, &command)).await {
            None => own("cancelled", "the future was dropped"),
            Some(None) => own("deadline", "deadline has elapsed"),
            Some(Some(Ok(result))) => json!({"id": id, "result": result}),
            Some(Some(Err(e))) => {
                lock(&self.printed).insert(id.clone(), vec![format!("{e}"), format!("{e:?}"), format!("{e:#?}")]);
                json!({"id": id, "error": describe(&e)})
            }
        };
        lock(&self.running).remove(&id);
        write(&answer);
    }

    /// Keeps how a result prints.
    fn print<T: std::fmt::Debug>(&self, id: &str, result: T) -> T {
        lock(&self.printed).insert(id.to_owned(), vec![format!("{result:?}"), format!("{result:#?}")]);
        result
    }

    fn entry(&self, name: &str) -> Result<Entry> {
        lock(&self.clients).get(name).cloned().ok_or_else(|| Error::Usage(format!("there is no client {name:?}")))
    }

    fn client(&self, name: &str) -> Result<Client> {
        Ok(self.entry(name)?.client)
    }

    fn add(&self, name: &str, client: Client, identity: Identity, opened: &str) {
        lock(&self.clients).insert(name.to_owned(), Entry { client, identity, opened: opened.to_owned() });
    }

    /// Transfers have a time limit of their own, with an error that says more. Other calls are limited as programs in Rust do it. None:
    /// the limit has passed.
    async fn timed(&self, id: &str, c: &Value) -> Option<Result<Value>> {
        match values::millis(&c["deadlineMs"]) {
            Some(limit) if !matches!(c["op"].as_str(), Some("upload" | "download")) => {
                tokio::time::timeout(limit, self.run(id, c)).await.ok()
            }
            _ => Some(self.run(id, c).await),
        }
    }

    async fn run(&self, id: &str, c: &Value) -> Result<Value> {
        let name = text(&c["client"]);
        match text(&c["op"]).as_str() {
            "open" => self.open(&name, c)?,
            "as" => {
                let from = self.entry(&text(&c["from"]))?;
                let identity = values::identity(&c["identity"], &from.client);
                self.add(&name, from.client.with_identity(identity.clone()), identity, &from.opened);
            }
            // A connection is closed when every client on it is dropped.
            "close" => {
                let opened = self.entry(&name)?.opened;
                lock(&self.clients).retain(|_, entry| entry.opened != opened);
            }
            "cancel" => {
                if let Some(stop) = lock(&self.running).get(&text(&c["call"])) {
                    stop.cancel();
                }
            }
            "print" => {
                let Entry { client, identity, .. } = self.entry(&name)?;
                let mut texts = vec![format!("{client:?}"), format!("{client:#?}"), format!("{identity:?}"), format!("{identity:#?}")];
                texts.extend(lock(&self.printed).get(&text(&c["call"])).cloned().unwrap_or_default());
                return Ok(json!({"text": texts}));
            }
            "upload" => return self.upload(id, &self.client(&name)?, c).await,
            "download" => return self.download(id, &self.client(&name)?, c).await,
            "files" => return transfers::files(&self.client(&name)?, c).await,
            "watch" => return transfers::watch(id, &self.client(&name)?, c).await,
            op => return self.unary(id, op, &self.client(&name)?, c).await,
        }
        Ok(json!({}))
    }

    fn open(&self, name: &str, c: &Value) -> Result<()> {
        if c["fromEnvironment"] == true {
            let client = Client::from_env()?.connect_lazy()?;
            self.add(name, client, Identity::none(), name);
            return Ok(());
        }
        let mut builder = Client::builder(text(&c["target"])).account(text(&c["account"]));
        let tls = &c["tls"];
        if tls["plaintext"] == true {
            builder = builder.plaintext();
        } else if tls.is_object() {
            let path = |member: &str| tls[member].as_str().filter(|p| !p.is_empty()).map(Path::new);
            builder = builder.tls_files(path("ca"), path("cert"), path("key"))?;
        }
        let client = builder.connect_lazy()?;
        let identity = values::identity(&c["identity"], &client);
        self.add(name, client.with_identity(identity.clone()), identity, name);
        Ok(())
    }

    /// Makes a call that is one request and one response.
    async fn unary(&self, id: &str, op: &str, client: &Client, c: &Value) -> Result<Value> {
        use proto::{sign_in_agent_request::Credentials, sign_in_consumer_request::Grant};
        let request = &c["request"];
        Ok(match op {
            "stat" => json!({"file": file(Some(&client.stat(text(&c["file"])).await?))}),
            "getUpload" => {
                let upload = client.get_upload(text(&c["upload"])).await?;
                let state = enum_name(upload.state, "UPLOAD_STATE_", |v| Some(proto::UploadState::try_from(v).ok()?.as_str_name()));
                json!({"upload": upload.name, "state": state})
            }
            "publishUpload" => {
                let r = client.publish_upload(text(&c["upload"])).await?;
                json!({"file": file(r.file.as_ref()), "replayed": r.replayed})
            }
            "capabilities" => {
                let r = client.capabilities().await?;
                json!({
                    "maxFileBytes": r.max_file_bytes, "maxSmallFileBytes": r.max_small_file_bytes,
                    "fileTypes": r.file_types.iter().map(|t| values::file_type(*t)).collect::<Vec<_>>(),
                    "serverVersion": r.server_version,
                })
            }
            "signInConsumer" => {
                let member = |name: &str| request[name].as_str().map(str::to_owned);
                let grant = if let Some(connector_id) = member("anonymous") {
                    Grant::Anonymous(proto::AnonymousSignIn { connector_id })
                } else if let Some(jwt) = member("customerJwt") {
                    Grant::CustomerJwt(jwt)
                } else if let Some(code) = member("authCode") {
                    Grant::AuthCode(code)
                } else {
                    Grant::SignUp(proto::SignUp {})
                };
                values::session(&self.print(id, client.sign_in_consumer(grant).await?))
            }
            "signInAgent" => {
                let credentials = proto::PasswordCredentials { username: text(&request["userName"]), password: text(&request["password"]) };
                let r = self.print(id, client.sign_in_agent(Credentials::Password(credentials)).await?);
                json!({"token": r.agent_token})
            }
            "signOutAgent" => {
                client.sign_out_agent().await?;
                json!({})
            }
            "createConversation" => {
                let request = proto::CreateConversationRequest { request_id: text(&c["requestId"]), ..Default::default() };
                json!({"conversation": client.create_conversation(request).await?.name})
            }
            "closeConversation" => {
                let r = client.close_conversation(text(&c["conversation"])).await?;
                let name = |v| Some(proto::ConversationState::try_from(v).ok()?.as_str_name());
                json!({"state": enum_name(r.state, "CONVERSATION_STATE_", name)})
            }
            "conversations" => {
                let mut list = client.conversations(ConversationsOptions::default());
                let mut names = Vec::new();
                while let Some(conversation) = list.next().await {
                    names.push(conversation?.name);
                }
                json!({"conversations": names})
            }
            _ => return Err(Error::Usage(format!("unknown op {op:?} (limit {})", number(&c["limit"])))),
        })
    }
}
