package com.lpfileshare;

import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Function;

/** Iterates over the elements of a listing, page after page. */
final class Pages<T> implements Iterator<T> {
  /** A page, and the token of the next one. Empty: there is none. */
  record Page<T>(List<T> elements, String next) {}

  private final Function<String, Page<T>> fetch;
  private Iterator<T> page = Collections.emptyIterator();
  private String token = "";
  private boolean ended;

  Pages(Function<String, Page<T>> fetch) {
    this.fetch = fetch;
  }

  @Override
  public boolean hasNext() {
    while (!page.hasNext() && !ended) {
      Page<T> fetched = fetch.apply(token);
      page = fetched.elements().iterator();
      token = fetched.next();
      ended = token.isEmpty();
    }
    return page.hasNext();
  }

  @Override
  public T next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    return page.next();
  }
}
