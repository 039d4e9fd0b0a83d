package com.lpfileshare;

import com.lpfileshare.v1.File;
import com.lpfileshare.v1.ListFilesRequest;
import com.lpfileshare.v1.ListFilesResponse;
import com.lpfileshare.v1.UnreadableConversation;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The files of a conversation. It makes no call before it is iterated over, and then reads page
 * after page. Each iteration begins anew. It is not safe for concurrent use. The iterator throws
 * {@link LpFileShareException}.
 */
public final class FileList implements Iterable<File> {
  private final Function<ListFilesRequest, ListFilesResponse> fetch;
  private final ListFilesRequest first;
  private final List<UnreadableConversation> unreadable = new ArrayList<>();
  private String watchToken = "";

  FileList(Function<ListFilesRequest, ListFilesResponse> fetch, ListFilesRequest first) {
    this.fetch = fetch;
    this.first = first;
  }

  @Override
  public Iterator<File> iterator() {
    return new Pages<>(
        page -> {
          ListFilesResponse r = fetch.apply(first.toBuilder().setPageToken(page).build());
          note(r, page.isEmpty());
          return new Pages.Page<>(r.getFilesList(), r.getNextPageToken());
        });
  }

  /** Returns the files as a sequential stream. */
  public Stream<File> stream() {
    return StreamSupport.stream(spliterator(), false);
  }

  /**
   * Returns the token that starts a watch exactly where the listing ends, so that no file is missed
   * or repeated. Empty: the files were not read to the end yet.
   */
  public String watchToken() {
    return watchToken;
  }

  /**
   * Returns the conversations that the listing leaves out, in part or as a whole, because the
   * server could not read them. It is known once the files were read to the end.
   */
  public List<UnreadableConversation> unreadable() {
    return List.copyOf(unreadable);
  }

  private void note(ListFilesResponse page, boolean isFirst) {
    if (isFirst) {
      unreadable.clear();
    }
    if (!page.getWatchToken().isEmpty()) {
      watchToken = page.getWatchToken();
    }
    for (UnreadableConversation u : page.getUnreadableConversationsList()) {
      if (unreadable.stream()
          .noneMatch(
              k -> k.getName().equals(u.getName()) && k.getDialogId().equals(u.getDialogId()))) {
        unreadable.add(u);
      }
    }
  }
}
