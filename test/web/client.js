// What the test bundles for its page: the browser entry, as a global.
import * as lpfileshare from "lpfileshare/browser";

globalThis.lpfileshare = lpfileshare;
