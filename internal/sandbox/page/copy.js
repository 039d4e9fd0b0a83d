// @ts-check
// The same action as a command. A command never contains a token: it names the variable TOKEN.

/**
 * @typedef {object} Action What is sent.
 * @property {"consumer" | "agent"} side
 * @property {string} account
 * @property {string} conversation the id
 * @property {string} file the name of the file
 * @property {string} fileType such as FILE_TYPE_JPEG
 * @property {string} caption
 *
 * @typedef {object} Server
 * @property {string} grpc host and port
 * @property {boolean} tls
 * @property {string} origin of this page
 */

const method = "lpfileshare.v1.FileSharingService/UploadSmallFile";

/** Quotes a text for a POSIX shell. @param {string} text */
export function quote(text) {
  return /^[A-Za-z0-9_./:@%+,=-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
}

/** A file as an argument, which is no flag. @param {string} name */
const argument = (name) => quote(name.startsWith("-") ? "./" + name : name);

/** @param {Action} a */
const header = (a) => (a.side === "agent" ? "lp-agent-token" : "lp-consumer-token");

/** A command that prints the request. @param {Action} a */
function body(a) {
  /** @type {Record<string, string>} */
  const spec = {
    conversation: `accounts/${a.account}/conversations/${a.conversation}`, displayName: a.file, fileType: a.fileType,
  };
  if (a.caption) spec["caption"] = a.caption;
  const start = JSON.stringify({ spec }).slice(0, -1) + ',"data":"';
  return `{ printf %s ${quote(start)}; base64 -w 0 ${argument(a.file)}; printf '"}'; }`;
}

/** @param {Action} a @param {Server} s */
export function cli(a, s) {
  const variable = a.side === "agent" ? "LPFILESHARE_AGENT_TOKEN" : "LPFILESHARE_TOKEN";
  const words = [
    `${variable}="$TOKEN"`, "lpfileshare", "--address", s.grpc, "--account", a.account, ...(a.side === "agent" ? ["agent", "send"] : ["upload"]),
    "-c", quote(a.conversation), ...(a.caption ? ["--caption=" + quote(a.caption)] : []), argument(a.file),
  ];
  return words.join(" ");
}

/** @param {Action} a @param {Server} s */
export function grpcurl(a, s) {
  return `${body(a)} |\n  grpcurl ${s.tls ? "" : "-plaintext "}-H "${header(a)}: $TOKEN" -d @ ${s.grpc} ${method}`;
}

/** @param {Action} a @param {Server} s */
export function curl(a, s) {
  return `${body(a)} |\n  curl -sS -H "${header(a)}: $TOKEN" -H 'content-type: application/json' -H 'connect-protocol-version: 1' --data-binary @- ${s.origin}/${method}`;
}

/** A text as a literal of Go. @param {string} text */
function literal(text) {
  return JSON.stringify(text).replace(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

/** @param {Action} a @param {Server} s */
export function go(a, s) {
  const token = a.side === "agent" ? "WithAgentToken" : "WithConsumerToken";
  const caption = a.caption ? `, Caption: ${literal(a.caption)}` : "";
  return `c, err := lpfileshare.Dial(${literal(s.grpc)}, lpfileshare.${token}(lpfileshare.StaticToken(os.Getenv("TOKEN"))))
if err != nil {
	return err
}
defer c.Close()
resp, err := c.UploadFile(ctx, lpfileshare.UploadOptions{
	Conversation: ${literal(`accounts/${a.account}/conversations/${a.conversation}`)}${caption},
}, ${literal(a.file)})`;
}

/** @type {Record<string, (a: Action, s: Server) => string>} */
export const forms = { CLI: cli, grpcurl, curl, Go: go };
