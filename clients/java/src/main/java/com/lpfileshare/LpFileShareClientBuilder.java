package com.lpfileshare;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.NameResolverRegistry;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Makes a client. By default the connection uses TLS with the JVM's certificate authorities, and
 * plaintext to loopback addresses and Unix sockets.
 */
public final class LpFileShareClientBuilder {
  static {
    NameResolverRegistry.getDefaultRegistry().register(new ServerList());
  }

  private String target = "";
  private String account = "";
  private Identity identity = Identity.NONE;
  private String tlsCa = "";
  private String clientCert = "";
  private String clientKey = "";
  private boolean plaintext;
  private ChannelCredentials credentials;
  private String userAgent = "";

  LpFileShareClientBuilder() {}

  /**
   * Sets the server: "files.example.com:443", any target of gRPC ("dns:///files.example.com:443"),
   * or several servers that share a ledger, "files-1.example.com:443,files-2.example.com:443".
   * Calls are distributed over those that can be reached.
   */
  public LpFileShareClientBuilder target(String address) {
    target = address;
    return this;
  }

  /** Sets the account of requests that do not name one, by its id or resource name. */
  public LpFileShareClientBuilder account(String id) {
    account = id;
    return this;
  }

  /** Sets the identity of calls. Default: none. */
  public LpFileShareClientBuilder identity(Identity id) {
    identity = id;
    return this;
  }

  /** Sets a PEM file with the only certificate authorities to trust. */
  public LpFileShareClientBuilder tlsCa(String pemFile) {
    tlsCa = pemFile;
    return this;
  }

  /** Sets PEM files with the client certificate and its key (PKCS #8), for mutual TLS. */
  public LpFileShareClientBuilder clientCertificate(String certFile, String keyFile) {
    clientCert = certFile;
    clientKey = keyFile;
    return this;
  }

  /**
   * Connects without TLS to any target. Tokens and files are then readable on the network: use it
   * only if something else protects the connection, for example a service mesh.
   */
  public LpFileShareClientBuilder plaintext() {
    plaintext = true;
    return this;
  }

  /** Sets how the connection is protected, instead of the methods above. */
  public LpFileShareClientBuilder credentials(ChannelCredentials c) {
    credentials = c;
    return this;
  }

  /** Adds the name and version of a program to the user agent, before those of this package. */
  public LpFileShareClientBuilder userAgent(String agent) {
    userAgent = agent;
    return this;
  }

  LpFileShareClientBuilder environment(Map<String, String> env) {
    target = env.getOrDefault("LPFILESHARE_ADDRESS", "");
    if (target.isEmpty()) {
      throw new IllegalArgumentException("LPFILESHARE_ADDRESS is not set; set it to HOST:PORT");
    }
    account = env.getOrDefault("LPFILESHARE_ACCOUNT", "");
    List<Identity> identities = new ArrayList<>();
    env.forEach(
        (name, value) -> {
          if (!value.isEmpty()) {
            switch (name) {
              case "LPFILESHARE_TOKEN" -> identities.add(Identity.consumerToken(value));
              case "LPFILESHARE_AGENT_TOKEN" -> identities.add(Identity.agentToken(value));
              case "LPFILESHARE_EXTERNAL_CONSUMER_ID" ->
                  identities.add(Identity.externalConsumerId(value));
              default -> {}
            }
          }
        });
    if (identities.size() > 1) {
      throw new IllegalArgumentException(
          "set only one of LPFILESHARE_TOKEN, LPFILESHARE_AGENT_TOKEN and LPFILESHARE_EXTERNAL_CONSUMER_ID; a call carries exactly one");
    }
    identities.forEach(this::identity);
    tlsCa = env.getOrDefault("LPFILESHARE_TLS_CA", "");
    clientCert = env.getOrDefault("LPFILESHARE_CLIENT_CERT", "");
    clientKey = env.getOrDefault("LPFILESHARE_CLIENT_KEY", "");
    String text = env.getOrDefault("LPFILESHARE_PLAINTEXT", "").toLowerCase(Locale.ROOT);
    plaintext =
        switch (text) {
          case "true", "1", "yes" -> true;
          case "false", "0", "no", "" -> false;
          default ->
              throw new IllegalArgumentException(
                  "LPFILESHARE_PLAINTEXT is \"" + text + "\", must be true or false");
        };
    return this;
  }

  /**
   * Returns the client. It does not connect yet.
   *
   * @throws IllegalArgumentException if a setting is wrong, or a file cannot be read
   */
  public LpFileShareClient build() {
    if (target.isEmpty()) {
      throw new IllegalArgumentException("target is not set; set it to HOST:PORT");
    }
    ManagedChannelBuilder<?> channel =
        Grpc.newChannelBuilder(ServerList.target(target), protection());
    channel
        .userAgent((userAgent + " lpfileshare-java/" + version()).trim())
        .defaultLoadBalancingPolicy("round_robin")
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .disableRetry(); // gRPC's own policy does not read RetryInfo, and buffers what is sent
    return new LpFileShareClient(
        new Connection(channel.build()), identity, Texts.accountName(account));
  }

  private ChannelCredentials protection() {
    boolean files = !tlsCa.isEmpty() || !clientCert.isEmpty() || !clientKey.isEmpty();
    if (clientCert.isEmpty() != clientKey.isEmpty()) {
      throw new IllegalArgumentException("client certificate and key must be set together");
    }
    if (credentials != null && (files || plaintext) || files && plaintext) {
      throw new IllegalArgumentException(
          "plaintext, credentials, and files for TLS exclude each other");
    }
    if (credentials != null) {
      return credentials;
    }
    if (plaintext || !files && ServerList.isLoopback(target)) {
      return InsecureChannelCredentials.create();
    }
    try {
      TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
      if (!tlsCa.isEmpty()) {
        tls.trustManager(new File(tlsCa));
      }
      if (!clientCert.isEmpty()) {
        tls.keyManager(new File(clientCert), new File(clientKey));
      }
      return tls.build();
    } catch (IOException e) {
      throw new IllegalArgumentException("TLS: " + e.getMessage(), e);
    }
  }

  private static String version() {
    String v = LpFileShareClient.class.getPackage().getImplementationVersion();
    return v == null ? "devel" : v;
  }
}
