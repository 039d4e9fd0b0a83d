package com.lpfileshare;

import com.lpfileshare.v1.AccountServiceGrpc;
import com.lpfileshare.v1.CloseConversationRequest;
import com.lpfileshare.v1.Conversation;
import com.lpfileshare.v1.ConversationServiceGrpc;
import com.lpfileshare.v1.CreateConversationRequest;
import com.lpfileshare.v1.File;
import com.lpfileshare.v1.FileSharingServiceGrpc;
import com.lpfileshare.v1.GetCapabilitiesRequest;
import com.lpfileshare.v1.GetCapabilitiesResponse;
import com.lpfileshare.v1.GetConversationRequest;
import com.lpfileshare.v1.GetUploadRequest;
import com.lpfileshare.v1.IdentityServiceGrpc;
import com.lpfileshare.v1.ListConversationsRequest;
import com.lpfileshare.v1.ListConversationsResponse;
import com.lpfileshare.v1.PublishUploadRequest;
import com.lpfileshare.v1.PublishUploadResponse;
import com.lpfileshare.v1.SignInAgentRequest;
import com.lpfileshare.v1.SignInAgentResponse;
import com.lpfileshare.v1.SignInConsumerRequest;
import com.lpfileshare.v1.SignInConsumerResponse;
import com.lpfileshare.v1.SignOutAgentRequest;
import com.lpfileshare.v1.StatFileRequest;
import com.lpfileshare.v1.UploadResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * A connection to an lpfileshare server, or to several, with the identity that its calls carry. It
 * is safe for concurrent use. It connects on demand. The caller closes it.
 *
 * <p>Methods block. To cancel one, interrupt its thread: it throws {@link
 * LpFileShareException.Cancelled}, and the flag of the thread stays set. {@link #withDeadline}
 * limits their time. All failures are {@link LpFileShareException}.
 */
public final class LpFileShareClient implements AutoCloseable {
  private final Connection connection;
  private final Identity identity;
  private final Caller caller;
  private final String account; // resource name, or empty
  private final Duration timeout; // null: none

  LpFileShareClient(Connection connection, Identity identity, String account) {
    this(connection, identity, new Caller(connection, identity, account), account, null);
  }

  private LpFileShareClient(
      Connection connection, Identity identity, Caller caller, String account, Duration timeout) {
    this.connection = connection;
    this.identity = identity;
    this.caller = caller;
    this.account = account;
    this.timeout = timeout;
  }

  /** Begins a client. */
  public static LpFileShareClientBuilder builder() {
    return new LpFileShareClientBuilder();
  }

  /**
   * Returns a client with the settings of the environment: LPFILESHARE_ADDRESS,
   * LPFILESHARE_ACCOUNT, at most one of LPFILESHARE_TOKEN, LPFILESHARE_AGENT_TOKEN and
   * LPFILESHARE_EXTERNAL_CONSUMER_ID, and LPFILESHARE_TLS_CA, LPFILESHARE_CLIENT_CERT,
   * LPFILESHARE_CLIENT_KEY (PEM files), LPFILESHARE_PLAINTEXT.
   *
   * @throws IllegalArgumentException if one is missing or wrong
   */
  public static LpFileShareClient fromEnvironment() {
    return builder().environment(System.getenv()).build();
  }

  /** Returns a client with another identity on the same connection. Closing either closes both. */
  public LpFileShareClient as(Identity other) {
    return new LpFileShareClient(
        connection, other, new Caller(connection, other, account), account, timeout);
  }

  /**
   * Returns a client on the same connection whose operations, with all their attempts, each take at
   * most this long. They throw {@link LpFileShareException.DeadlineExceeded} then. Of a watch or an
   * open download it limits the whole. Closing either closes both.
   */
  public LpFileShareClient withDeadline(Duration limit) {
    return new LpFileShareClient(connection, identity, caller, account, limit);
  }

  /** Returns the resource name of the account, accounts/{account}. Empty: none was set. */
  public String account() {
    return account;
  }

  /** Ends the connection and every operation on it. It waits for its end, at most a second. */
  @Override
  public void close() {
    connection.close();
  }

  /** Returns the kind of the identity, without the token. */
  @Override
  public String toString() {
    return "LpFileShareClient(" + connection.channel().authority() + ", " + identity + ")";
  }

  /**
   * Sends a file. It returns once the file is stored, verified and, unless the options say
   * otherwise, published exactly once.
   *
   * <p>A repeatable source is read once for size and checksums, which are sent first, and once for
   * each attempt. Any other is read once, so an attempt can follow only if nothing was read yet.
   * The file is not kept in memory. The upload is repeated by the retry rule of the contract, under
   * the same request id. A rejected token is renewed once, if its source can.
   *
   * @throws LpFileShareException with requestId set. finished says whether the file may have been
   *     published nevertheless
   * @throws LpFileShareException.SourceFailed if the source fails; nothing is stored
   * @throws IllegalArgumentException if the file type cannot be detected
   */
  public UploadResponse upload(UploadOptions options, Source source) {
    return new Upload(caller, options, source, timeout).run();
  }

  /** Does the same on another thread. Cancelling the future cancels the upload. */
  public CompletableFuture<UploadResponse> uploadAsync(UploadOptions options, Source source) {
    Upload upload = new Upload(caller, options, source, timeout);
    return async(upload::run);
  }

  /**
   * Publishes the file of an upload that was stored only, exactly once. A repeat returns the
   * published file.
   *
   * @param upload UploadResponse.upload, accounts/{account}/uploads/{request_id}
   */
  public PublishUploadResponse publishUpload(String upload) {
    PublishUploadRequest request = PublishUploadRequest.newBuilder().setName(upload).build();
    return unary("publish upload", FileSharingServiceGrpc.getPublishUploadMethod(), request);
  }

  /**
   * Returns the state of an upload of this caller.
   *
   * @param upload UploadResponse.upload, accounts/{account}/uploads/{request_id}
   */
  public com.lpfileshare.v1.Upload getUpload(String upload) {
    GetUploadRequest request = GetUploadRequest.newBuilder().setName(upload).build();
    return unary("get upload", FileSharingServiceGrpc.getGetUploadMethod(), request).getUpload();
  }

  /**
   * Writes a file, or a part of it, to a stream, which is not closed. After a failure the stream
   * has received a correct beginning of the file, unless the failure says that the file was damaged
   * in the store or on the way from it. See {@link DownloadStream} for what is verified and
   * repeated.
   *
   * @throws LpFileShareException.SinkFailed if the stream fails
   */
  public DownloadResult download(DownloadOptions options, OutputStream out) {
    try (DownloadStream stream = new DownloadStream(caller, options, timeout)) {
      return stream.writeTo(out);
    }
  }

  /**
   * Downloads to a file of the local disk, completely or not at all: through a temporary file in
   * the same directory, which only its owner can read. An existing file is replaced.
   *
   * @throws LpFileShareException.SinkFailed if the file cannot be written
   */
  public DownloadResult downloadTo(DownloadOptions options, Path path) {
    Path temporary = null;
    try {
      if (Files.isDirectory(path)) {
        throw new IOException(path + " is a directory");
      }
      temporary = Files.createTempFile(path.toAbsolutePath().getParent(), ".lpfileshare-", ".part");
      DownloadResult result;
      try (FileChannel file = FileChannel.open(temporary, StandardOpenOption.WRITE)) {
        result = download(options, Channels.newOutputStream(file));
        file.force(true);
      }
      Files.move(
          temporary, path, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
      temporary = null;
      return result;
    } catch (IOException e) {
      throw new LpFileShareException.SinkFailed("download", e);
    } finally {
      remove(temporary);
    }
  }

  private static void remove(Path temporary) {
    if (temporary != null) {
      try {
        Files.deleteIfExists(temporary);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  /**
   * Opens a file, or a part of it, for reading. It returns when the first bytes have arrived, so
   * errors such as FILE_NOT_FOUND are thrown here. The caller closes the stream.
   */
  public DownloadStream openDownload(DownloadOptions options) {
    return new DownloadStream(caller, options, timeout).start();
  }

  /**
   * Returns the files of a conversation. It makes no call before it is iterated over. A deadline
   * limits each page.
   */
  public FileList files(FilesOptions options) {
    return new FileList(
        request -> unary("list files", FileSharingServiceGrpc.getListFilesMethod(), request),
        options.request.build());
  }

  /** Returns the files of a conversation, accounts/{account}/conversations/{conversation}. */
  public FileList files(String parent) {
    return files(FilesOptions.of(parent));
  }

  /**
   * Returns each file as it is published. It makes no call before it is iterated over. The caller
   * closes it.
   */
  public FileWatch watch(WatchOptions options) {
    return new FileWatch(caller, options, timeout);
  }

  /**
   * Calls a listener for each file as it is published, on another thread, one after the other.
   * Cancelling the future ends the watch; the future ends otherwise only with the failure of the
   * watch, or with what the listener threw.
   */
  public CompletableFuture<Void> watch(WatchOptions options, Consumer<File> listener) {
    FileWatch watch = watch(options);
    return async(
        () -> {
          try (watch) {
            watch.forEachRemaining(listener);
            return null;
          }
        });
  }

  /** Returns the metadata of a file, with the store's size and ETag. */
  public File stat(String file) {
    StatFileRequest request = StatFileRequest.newBuilder().setName(file).build();
    return unary("stat", FileSharingServiceGrpc.getStatFileMethod(), request).getFile();
  }

  /** Returns the limits, file types and times of the server for the client's account. */
  public GetCapabilitiesResponse capabilities() {
    GetCapabilitiesRequest request =
        GetCapabilitiesRequest.newBuilder().setAccount(account).build();
    return unary("get capabilities", FileSharingServiceGrpc.getGetCapabilitiesMethod(), request);
  }

  /**
   * Signs in a consumer: anonymously, as a new one, or with a JWT or code of the brand. Use the
   * session with {@link Identity#consumerSession}. The call is never repeated: a second sign-in is
   * another sign-in. An empty account is the client's.
   */
  public ConsumerSession signInConsumer(SignInConsumerRequest request) {
    SignInConsumerRequest r =
        request.getAccount().isEmpty() ? request.toBuilder().setAccount(account).build() : request;
    SignInConsumerResponse s =
        connection.once(
            operation("sign in consumer"), IdentityServiceGrpc.getSignInConsumerMethod(), r);
    return new ConsumerSession(
        s.getConsumerToken(),
        s.getRenewalSecret(),
        s.getConsumerId(),
        s.hasExpireTime() ? SessionTokens.instant(s.getExpireTime()) : null);
  }

  /** Signs in an agent or bot. The call is never repeated. An empty account is the client's. */
  public AgentSession signInAgent(SignInAgentRequest request) {
    SignInAgentRequest r =
        request.getAccount().isEmpty() ? request.toBuilder().setAccount(account).build() : request;
    SignInAgentResponse s =
        connection.once(operation("sign in agent"), IdentityServiceGrpc.getSignInAgentMethod(), r);
    return new AgentSession(
        s.getAgentToken(),
        s.getAgentId(),
        s.hasExpireTime() ? SessionTokens.instant(s.getExpireTime()) : null);
  }

  /**
   * Ends the login of the agent or bot whose token this client carries. The token is invalid
   * afterwards, on every connection. A repeat is not an error.
   */
  public void signOutAgent() {
    SignOutAgentRequest request = SignOutAgentRequest.newBuilder().setAccount(account).build();
    unary("sign out agent", IdentityServiceGrpc.getSignOutAgentMethod(), request);
  }

  /**
   * Opens a conversation for the calling consumer. An empty account is the client's. An empty
   * request id is set to a new one, so that a repeat after a lost response does not create a second
   * conversation.
   */
  public Conversation createConversation(CreateConversationRequest request) {
    CreateConversationRequest.Builder b = request.toBuilder();
    if (b.getAccount().isEmpty()) {
      b.setAccount(account);
    }
    if (b.getRequestId().isEmpty()) {
      b.setRequestId(UUID.randomUUID().toString());
    }
    return unary(
            "create conversation", ConversationServiceGrpc.getCreateConversationMethod(), b.build())
        .getConversation();
  }

  /** Returns a conversation, accounts/{account}/conversations/{conversation}. */
  public Conversation getConversation(String name) {
    GetConversationRequest request = GetConversationRequest.newBuilder().setName(name).build();
    return unary("get conversation", ConversationServiceGrpc.getGetConversationMethod(), request)
        .getConversation();
  }

  /** Closes a conversation and all its dialogs. Closing a closed conversation is not an error. */
  public Conversation closeConversation(String name) {
    CloseConversationRequest request = CloseConversationRequest.newBuilder().setName(name).build();
    return unary(
            "close conversation", ConversationServiceGrpc.getCloseConversationMethod(), request)
        .getConversation();
  }

  /**
   * Returns the conversations of the caller. Each iteration begins anew and reads page after page.
   * A deadline limits each page.
   */
  public Iterable<Conversation> conversations() {
    ListConversationsRequest first =
        ListConversationsRequest.newBuilder().setAccount(account).build();
    return () ->
        new Pages<>(
            page -> {
              ListConversationsRequest request = first.toBuilder().setPageToken(page).build();
              ListConversationsResponse r =
                  unary(
                      "list conversations",
                      ConversationServiceGrpc.getListConversationsMethod(),
                      request);
              return new Pages.Page<>(r.getConversationsList(), r.getNextPageToken());
            });
  }

  /**
   * Returns the generated stubs, for calls and fields that this package has no method for. Their
   * calls carry the identity of the client. They are not repeated, and throw gRPC's own
   * StatusRuntimeException.
   */
  public Raw raw() {
    Channel channel = ClientInterceptors.intercept(connection.channel(), new Identifier());
    return new Raw(
        FileSharingServiceGrpc.newBlockingStub(channel),
        ConversationServiceGrpc.newBlockingStub(channel),
        IdentityServiceGrpc.newBlockingStub(channel),
        AccountServiceGrpc.newBlockingStub(channel));
  }

  /**
   * The generated stubs. {@code FileSharingServiceGrpc.newStub(raw.files().getChannel())} makes
   * those of other kinds.
   */
  public record Raw(
      FileSharingServiceGrpc.FileSharingServiceBlockingStub files,
      ConversationServiceGrpc.ConversationServiceBlockingStub conversations,
      IdentityServiceGrpc.IdentityServiceBlockingStub identity,
      AccountServiceGrpc.AccountServiceBlockingStub accounts) {}

  private Operation operation(String name) {
    return new Operation(name, timeout);
  }

  private <Q, R> R unary(String name, MethodDescriptor<Q, R> method, Q request) {
    return caller.unary(operation(name), method, request);
  }

  /** Runs an operation on another thread, which is interrupted if the future is cancelled. */
  private <T> CompletableFuture<T> async(Supplier<T> operation) {
    CompletableFuture<T> result = new CompletableFuture<>();
    Future<?> task =
        connection
            .executor()
            .submit(
                () -> {
                  try {
                    result.complete(operation.get());
                  } catch (RuntimeException | Error e) {
                    result.completeExceptionally(e);
                  }
                });
    result.whenComplete(
        (value, e) -> {
          if (result.isCancelled()) {
            task.cancel(true);
          }
        });
    return result;
  }

  /** Adds the identity to calls that carry one. */
  private final class Identifier implements ClientInterceptor {
    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(
        MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
      boolean identified =
          !method.getFullMethodName().startsWith(IdentityServiceGrpc.SERVICE_NAME + "/")
              || method == IdentityServiceGrpc.getSignOutAgentMethod();
      return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
        @Override
        public void start(Listener<R> listener, Metadata headers) {
          if (identified) {
            headers.merge(caller.metadata(caller.token(operation(method.getBareMethodName()))));
          }
          super.start(listener, headers);
        }
      };
    }
  }
}
