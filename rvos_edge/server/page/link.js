const RETRY = 1000;

/** WebSocket for the status and for edits; reconnects by itself. */
export function connect({ onStatus, onLost }) {
  let socket;
  let next = 1;
  const waiting = new Map();

  function open() {
    socket = new WebSocket(socketUrl("api/live"));
    socket.onmessage = (event) => {
      const told = JSON.parse(event.data);
      if (told.type === "status") {
        onStatus(told);
        return;
      }
      const answer = waiting.get(told.id);
      waiting.delete(told.id);
      if (told.type === "taken") answer?.resolve(told.revision);
      else answer?.reject(new Error(told.error));
    };
    socket.onclose = () => {
      for (const answer of waiting.values()) answer.reject(new Error("the connection is lost; try again."));
      waiting.clear();
      onLost();
      setTimeout(open, RETRY);
      // A server that was restarted does not know this browser any more.
      fetch("api/health").then((answer) => answer.status === 401 && location.reload(), () => {});
    };
  }

  /** Send an edit; resolves to its revision, or rejects with the reason of the refusal. */
  function send(edit) {
    return new Promise((resolve, reject) => {
      if (socket.readyState !== WebSocket.OPEN) {
        reject(new Error("there is no connection; try again."));
        return;
      }
      const id = next++;
      waiting.set(id, { resolve, reject });
      socket.send(JSON.stringify({ id, ...edit }));
    });
  }

  open();
  return { send };
}

/** Address of a WebSocket beside the page, wherever a proxy puts that. */
export const socketUrl = (path) => new URL(path, document.baseURI).href.replace(/^http/, "ws");

/** Request to the API, with bytes or with what becomes JSON; throws the server's reason. */
export async function call(method, path, body) {
  const isJson = body !== undefined && !(body instanceof Blob);
  const headers = isJson ? { "Content-Type": "application/json" } : {};
  const response = await fetch(path, { method, headers, body: isJson ? JSON.stringify(body) : body });
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

/** The same, answered in JSON. */
export const request = async (...asked) => (await call(...asked)).json();
