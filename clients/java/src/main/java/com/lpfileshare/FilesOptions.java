package com.lpfileshare;

import com.lpfileshare.v1.ListFilesRequest;
import com.lpfileshare.v1.ParticipantRole;

/** Selects the files of a listing. */
public final class FilesOptions {
  final ListFilesRequest.Builder request = ListFilesRequest.newBuilder();

  private FilesOptions() {}

  /**
   * Begins options for a conversation, accounts/{account}/conversations/{conversation}. "-" as
   * {conversation} selects all conversations of the caller.
   */
  public static FilesOptions of(String parent) {
    FilesOptions o = new FilesOptions();
    o.request.setParent(parent);
    return o;
  }

  /**
   * Sorts by creation time, newest first. Otherwise the oldest comes first, by conversation and
   * dialog.
   */
  public FilesOptions newestFirst() {
    request.setNewestFirst(true);
    return this;
  }

  /** Selects the files of one dialog. */
  public FilesOptions dialogId(String id) {
    request.setDialogId(id);
    return this;
  }

  /** Selects the files of senders with a role. */
  public FilesOptions senderRole(ParticipantRole role) {
    request.setSenderRole(role);
    return this;
  }

  /** Sets the number of files in a request. 0: the server's default. */
  public FilesOptions pageSize(int n) {
    request.setPageSize(n);
    return this;
  }
}
