import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.lpfileshare.ConsumerSession;
import com.lpfileshare.FileList;
import com.lpfileshare.FileWatch;
import com.lpfileshare.FilesOptions;
import com.lpfileshare.Identity;
import com.lpfileshare.LpFileShareClient;
import com.lpfileshare.LpFileShareClientBuilder;
import com.lpfileshare.TokenSource;
import com.lpfileshare.WatchOptions;
import com.lpfileshare.v1.AnonymousSignIn;
import com.lpfileshare.v1.Conversation;
import com.lpfileshare.v1.CreateConversationRequest;
import com.lpfileshare.v1.File;
import com.lpfileshare.v1.GetCapabilitiesResponse;
import com.lpfileshare.v1.ParticipantRole;
import com.lpfileshare.v1.PasswordCredentials;
import com.lpfileshare.v1.PublishUploadResponse;
import com.lpfileshare.v1.SignInAgentRequest;
import com.lpfileshare.v1.SignInConsumerRequest;
import com.lpfileshare.v1.SignUp;
import com.lpfileshare.v1.Upload;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** The driver of the Java client: see ../README.md. Each command runs on a thread of its own, which is interrupted to cancel it. */
public final class Driver {
  private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), true, StandardCharsets.UTF_8);
  private static final Gson JSON = new Gson();

  /** A command that runs or has ended. */
  private static final class Running {
    volatile Thread thread;
    volatile Object outcome;
  }

  private final Map<String, LpFileShareClient> clients = new ConcurrentHashMap<>();
  private final Map<String, Identity> identities = new ConcurrentHashMap<>();
  private final Map<String, Running> commands = new ConcurrentHashMap<>();

  public static void main(String[] args) throws Exception {
    Driver driver = new Driver();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      driver.begin(JSON.fromJson(line, JsonObject.class));
    }
    driver.end();
  }

  private void begin(JsonObject c) {
    Running running = new Running();
    commands.put(text(c, "id"), running);
    if (List.of("open", "as", "cancel").contains(text(c, "op"))) {
      run(c, running);
      return;
    }
    running.thread = new Thread(() -> run(c, running));
    running.thread.start();
  }

  private void end() throws InterruptedException {
    commands.values().stream().filter(r -> r.thread != null).forEach(r -> r.thread.interrupt());
    clients.values().forEach(LpFileShareClient::close);
    for (Running r : commands.values()) {
      if (r.thread != null) {
        r.thread.join();
      }
    }
  }

  private void run(JsonObject c, Running running) {
    JsonObject answer = new JsonObject();
    try {
      JsonObject result = perform(c, running);
      answer.add("result", result);
    } catch (Exception e) {
      running.outcome = e;
      answer.add("error", Values.error(e));
    }
    Thread.interrupted();
    write(text(c, "id"), answer);
  }

  private static void write(String id, JsonObject line) {
    line.addProperty("id", id);
    OUT.println(line);
  }

  static void event(JsonObject c, String name, JsonElement value) {
    JsonObject event = new JsonObject();
    event.add(name, value);
    JsonObject line = new JsonObject();
    line.add("event", event);
    write(text(c, "id"), line);
  }

  private JsonObject perform(JsonObject c, Running running) throws Exception {
    switch (text(c, "op")) {
      case "open" -> {
        open(c);
        return new JsonObject();
      }
      case "cancel" -> {
        Running r = commands.get(text(c, "call"));
        if (r != null && r.thread != null) {
          r.thread.interrupt();
        }
        return new JsonObject();
      }
      case "as" -> {
        LpFileShareClient from = client(text(c, "from"));
        Identity id = identity(c);
        identities.put(text(c, "client"), id);
        clients.put(text(c, "client"), from.as(id));
        return new JsonObject();
      }
      default -> {}
    }
    LpFileShareClient client = client(text(c, "client"));
    if (c.has("deadlineMs")) {
      client = client.withDeadline(Duration.ofMillis(number(c, "deadlineMs")));
    }
    Object outcome =
        switch (text(c, "op")) {
          case "close" -> {
            client.close();
            yield new JsonObject();
          }
          case "print" -> print(client, c);
          case "upload" -> Transfers.upload(client, c);
          case "download" -> Transfers.download(client, c);
          case "files" -> files(client, c);
          case "watch" -> watch(client, c);
          default -> unary(client, c);
        };
    running.outcome = outcome;
    return outcome instanceof ConsumerSession s ? Values.session(s) : (JsonObject) outcome;
  }

  private LpFileShareClient client(String name) {
    LpFileShareClient c = clients.get(name);
    if (c == null) {
      throw new IllegalArgumentException("there is no client " + name);
    }
    return c;
  }

  private void open(JsonObject c) {
    if (c.has("fromEnvironment") && c.get("fromEnvironment").getAsBoolean()) {
      clients.put(text(c, "client"), LpFileShareClient.fromEnvironment());
      return;
    }
    Identity id = identity(c);
    LpFileShareClientBuilder b =
        LpFileShareClient.builder().target(text(c, "target")).account(text(c, "account")).identity(id);
    JsonObject tls = object(c, "tls");
    if (tls.has("plaintext") && tls.get("plaintext").getAsBoolean()) {
      b.plaintext();
    }
    if (tls.has("ca")) {
      b.tlsCa(text(tls, "ca"));
    }
    if (tls.has("cert")) {
      b.clientCertificate(text(tls, "cert"), text(tls, "key"));
    }
    identities.put(text(c, "client"), id);
    clients.put(text(c, "client"), b.build());
  }

  private static Identity identity(JsonObject c) {
    JsonObject i = object(c, "identity");
    if (i.has("session") && i.get("session").isJsonObject()) {
      JsonObject s = object(i, "session");
      long expires = number(s, "expiresAtMs");
      return Identity.consumerSession(
          new ConsumerSession(
              text(s, "token"),
              text(s, "renewalSecret"),
              text(s, "consumerId"),
              expires == 0 ? null : Instant.ofEpochMilli(expires)));
    }
    List<String> tokens = strings(i, "tokens");
    TokenSource source = tokens.isEmpty() ? () -> text(i, "token") : new Tokens(tokens);
    return switch (text(i, "kind")) {
      case "consumer" -> Identity.consumerToken(source);
      case "agent" -> Identity.agentToken(source);
      case "external" -> Identity.externalConsumerId(text(i, "externalConsumerId"));
      default -> Identity.NONE;
    };
  }

  /** Moves to the next token at each renewal. */
  private static final class Tokens implements TokenSource {
    private final List<String> tokens;
    private int current;

    Tokens(List<String> tokens) {
      this.tokens = tokens;
    }

    @Override
    public synchronized String get() {
      return tokens.get(current);
    }

    @Override
    public synchronized String renew(String rejected) {
      if (get().equals(rejected) && current < tokens.size() - 1) {
        current++;
      }
      return get();
    }
  }

  /** Prints what a program could log, in every way of the language. */
  private JsonObject print(LpFileShareClient client, JsonObject c) {
    List<Object> values = new ArrayList<>(List.of(client, identities.getOrDefault(text(c, "client"), Identity.NONE)));
    Running r = commands.get(text(c, "call"));
    if (r != null && r.outcome != null) {
      values.add(r.outcome);
    }
    JsonArray texts = new JsonArray();
    for (Object v : values) {
      texts.add(v.toString());
      texts.add(String.format("%s", v));
      if (v instanceof Throwable t) {
        StringWriter trace = new StringWriter();
        t.printStackTrace(new PrintWriter(trace));
        texts.add(trace.toString());
      }
    }
    JsonObject o = new JsonObject();
    o.add("text", texts);
    return o;
  }

  private static JsonObject files(LpFileShareClient client, JsonObject c) {
    JsonObject in = object(c, "options");
    FilesOptions o = FilesOptions.of(text(c, "parent")).dialogId(text(in, "dialogId")).pageSize((int) number(in, "pageSize"));
    if (in.has("newestFirst") && in.get("newestFirst").getAsBoolean()) {
      o.newestFirst();
    }
    if (in.has("senderRole")) {
      o.senderRole(ParticipantRole.valueOf("PARTICIPANT_ROLE_" + text(in, "senderRole")));
    }
    FileList list = client.files(o);
    JsonArray files = new JsonArray();
    list.forEach(f -> files.add(Values.file(f)));
    JsonArray unreadable = new JsonArray();
    list.unreadable().forEach(u -> unreadable.add(u.getName()));
    JsonObject result = new JsonObject();
    result.add("files", files);
    result.addProperty("watchToken", list.watchToken());
    result.add("unreadable", unreadable);
    return result;
  }

  private static JsonObject watch(LpFileShareClient client, JsonObject c) throws InterruptedException {
    WatchOptions o =
        WatchOptions.of(text(c, "parent"))
            .token(text(c, "token"))
            .maxSilence(Duration.ofMillis(number(c, "maxSilenceMs")))
            .onConnection(lost -> event(c, "connection", JSON.toJsonTree(lost.isEmpty() ? "open" : "lost")));
    if (number(c, "retryForMs") != 0) {
      o.retryFor(Duration.ofMillis(number(c, "retryForMs")));
    }
    long limit = number(c, "limit");
    JsonArray files = new JsonArray();
    JsonObject result = new JsonObject();
    try (FileWatch watch = client.watch(o)) {
      for (File f : watch) {
        files.add(Values.file(f));
        JsonObject event = new JsonObject();
        event.add("file", Values.file(f));
        event.addProperty("token", watch.token());
        JsonObject line = new JsonObject();
        line.add("event", event);
        write(text(c, "id"), line);
        try {
          Thread.sleep(number(c, "delayMs"));
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
        }
        if (limit > 0 && files.size() >= limit) {
          break;
        }
      }
      result.addProperty("token", watch.token());
    }
    result.add("files", files);
    return result;
  }

  private static Object unary(LpFileShareClient client, JsonObject c) {
    JsonObject o = new JsonObject();
    switch (text(c, "op")) {
      case "stat" -> o.add("file", Values.file(client.stat(text(c, "file"))));
      case "getUpload" -> {
        Upload u = client.getUpload(text(c, "upload"));
        o.addProperty("upload", u.getName());
        o.add("state", Values.enumOf(u, "state", "UPLOAD_STATE_"));
      }
      case "publishUpload" -> {
        PublishUploadResponse r = client.publishUpload(text(c, "upload"));
        o.add("file", Values.file(r.getFile()));
        o.addProperty("replayed", r.getReplayed());
      }
      case "capabilities" -> {
        GetCapabilitiesResponse r = client.capabilities();
        o.addProperty("maxFileBytes", r.getMaxFileBytes());
        o.addProperty("maxSmallFileBytes", r.getMaxSmallFileBytes());
        o.addProperty("serverVersion", r.getServerVersion());
        JsonArray types = new JsonArray();
        r.getFileTypesList().forEach(t -> types.add(t.name().replace("FILE_TYPE_", "")));
        o.add("fileTypes", types);
      }
      case "signInConsumer" -> {
        return client.signInConsumer(signIn(object(c, "request")));
      }
      case "signInAgent" -> {
        JsonObject r = object(c, "request");
        PasswordCredentials p =
            PasswordCredentials.newBuilder().setUsername(text(r, "userName")).setPassword(text(r, "password")).build();
        o.addProperty("token", client.signInAgent(SignInAgentRequest.newBuilder().setPassword(p).build()).token());
      }
      case "signOutAgent" -> client.signOutAgent();
      case "createConversation" -> {
        CreateConversationRequest r = CreateConversationRequest.newBuilder().setRequestId(text(c, "requestId")).build();
        o.addProperty("conversation", client.createConversation(r).getName());
      }
      case "closeConversation" -> {
        Conversation closed = client.closeConversation(text(c, "conversation"));
        o.add("state", Values.enumOf(closed, "state", "CONVERSATION_STATE_"));
      }
      case "conversations" -> {
        JsonArray names = new JsonArray();
        client.conversations().forEach(conversation -> names.add(conversation.getName()));
        o.add("conversations", names);
      }
      default -> throw new IllegalArgumentException("unknown op " + text(c, "op"));
    }
    return o;
  }

  private static SignInConsumerRequest signIn(JsonObject r) {
    SignInConsumerRequest.Builder b = SignInConsumerRequest.newBuilder();
    if (r.has("signUp")) {
      b.setSignUp(SignUp.getDefaultInstance());
    } else if (r.has("anonymous")) {
      b.setAnonymous(AnonymousSignIn.newBuilder().setConnectorId(text(r, "anonymous")));
    } else if (r.has("customerJwt")) {
      b.setCustomerJwt(text(r, "customerJwt"));
    } else {
      b.setAuthCode(text(r, "authCode"));
    }
    return b.build();
  }

  static String text(JsonObject o, String name) {
    JsonElement e = o.get(name);
    return e == null || e.isJsonNull() ? "" : e.getAsString();
  }

  static long number(JsonObject o, String name) {
    JsonElement e = o.get(name);
    return e == null || e.isJsonNull() ? 0 : e.getAsLong();
  }

  static JsonObject object(JsonObject o, String name) {
    JsonElement e = o.get(name);
    return e == null || !e.isJsonObject() ? new JsonObject() : e.getAsJsonObject();
  }

  static List<String> strings(JsonObject o, String name) {
    List<String> list = new ArrayList<>();
    if (o.get(name) instanceof JsonArray a) {
      a.forEach(e -> list.add(e.getAsString()));
    }
    return list;
  }
}
