package com.lpfileshare;

import io.grpc.Attributes;
import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.Status;
import io.grpc.StatusOr;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.UnknownHostException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Executor;

/** Resolves a list of servers. Host names are looked up again when a connection is lost. */
final class ServerList extends NameResolverProvider {
  private static final String SCHEME = "lpfileshare";
  private static final int DEFAULT_PORT = 443;

  private record Server(String host, int port) {}

  /**
   * Returns the gRPC target of a list: HOST or HOST:PORT, with commas between them. A target of
   * gRPC's own, such as "dns:///files.example.com", stays as it is.
   */
  static String target(String list) {
    if (list.contains("://") || list.startsWith("unix:") || list.startsWith("dns:")) {
      return list;
    }
    parseAll(list);
    try {
      return new URI(SCHEME, "", "/" + list.replace(" ", ""), null).toString();
    } catch (URISyntaxException e) {
      throw new IllegalArgumentException(e);
    }
  }

  private static List<Server> parseAll(String list) {
    return Arrays.stream(list.split(",", -1)).map(s -> parse(s.trim())).toList();
  }

  private static Server parse(String text) {
    try {
      URI uri = new URI("x://" + text);
      if (uri.getHost() != null && uri.getAuthority().equals(text) && uri.getUserInfo() == null) {
        return new Server(uri.getHost(), uri.getPort() < 0 ? DEFAULT_PORT : uri.getPort());
      }
    } catch (URISyntaxException e) {
      // reported below
    }
    throw new IllegalArgumentException(
        "\""
            + text
            + "\" is not the address of a server; each in a list must be HOST or HOST:PORT");
  }

  private static boolean isLoopbackHost(String host) {
    String bare = host.replaceAll("^\\[|\\]$", "");
    return bare.equalsIgnoreCase("localhost")
        || bare.equals("::1")
        || bare.matches("127(\\.\\d{1,3}){3}");
  }

  /**
   * Returns whether a target is on this machine, judged by its name alone: loopback, "localhost" or
   * a Unix socket.
   */
  static boolean isLoopback(String target) {
    if (target.startsWith("unix:")) {
      return true;
    }
    try {
      return parseAll(target.replaceFirst("^dns:(///)?", "")).stream()
          .allMatch(s -> isLoopbackHost(s.host()));
    } catch (IllegalArgumentException e) {
      return false;
    }
  }

  @Override
  public NameResolver newNameResolver(URI target, NameResolver.Args args) {
    return SCHEME.equals(target.getScheme())
        ? new Resolver(parseAll(target.getPath().substring(1)), args.getOffloadExecutor())
        : null;
  }

  @Override
  protected boolean isAvailable() {
    return true;
  }

  @Override
  protected int priority() {
    return 5;
  }

  @Override
  public String getDefaultScheme() {
    return SCHEME;
  }

  private static final class Resolver extends NameResolver {
    private final List<Server> servers;
    private final Executor executor;
    private Listener2 listener;

    Resolver(List<Server> servers, Executor executor) {
      this.servers = servers;
      this.executor = executor;
    }

    @Override
    public String getServiceAuthority() {
      return servers.get(0).host() + ":" + servers.get(0).port();
    }

    @Override
    public void start(Listener2 l) {
      listener = l;
      refresh();
    }

    @Override
    public void refresh() {
      executor.execute(this::resolve);
    }

    @Override
    public void shutdown() {}

    private void resolve() {
      List<EquivalentAddressGroup> found = new ArrayList<>();
      String unknown = "";
      for (Server s : servers) {
        try {
          // The certificate is checked against the name of the server, not of the list.
          Attributes name =
              Attributes.newBuilder()
                  .set(EquivalentAddressGroup.ATTR_AUTHORITY_OVERRIDE, s.host() + ":" + s.port())
                  .build();
          for (InetAddress a : InetAddress.getAllByName(s.host())) {
            // Netty cannot connect to 0.0.0.0, which means this machine.
            InetAddress address = a.isAnyLocalAddress() ? InetAddress.getLoopbackAddress() : a;
            found.add(new EquivalentAddressGroup(new InetSocketAddress(address, s.port()), name));
          }
        } catch (UnknownHostException e) {
          unknown = "the host " + s.host() + " is not known";
        }
      }
      if (found.isEmpty()) {
        listener.onError(Status.UNAVAILABLE.withDescription(unknown));
      } else {
        listener.onResult(
            ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(found)).build());
      }
    }
  }
}
