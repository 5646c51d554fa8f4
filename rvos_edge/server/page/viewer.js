import { socketUrl } from "./link.js";

const RETRY = 1000;

/** Canvas with the newest picture of the page's stream, or of a camera ("door/") among several; the next one is requested when one is drawn, so that a slow viewer never lags. */
export function startViewer(canvas, camera = "") {
  const context = canvas.getContext("2d", { alpha: false });

  function open() {
    const socket = new WebSocket(socketUrl(`${camera}api/frames`));
    socket.binaryType = "blob";
    socket.onmessage = async (event) => {
      try {
        const picture = await createImageBitmap(event.data);
        if (canvas.width !== picture.width || canvas.height !== picture.height) {
          canvas.width = picture.width;
          canvas.height = picture.height;
        }
        context.drawImage(picture, 0, 0);
        picture.close();
        canvas.dataset.drawn = Number(canvas.dataset.drawn ?? 0) + 1;
      } finally {
        if (socket.readyState === WebSocket.OPEN) socket.send("next");
      }
    };
    socket.onclose = () => setTimeout(open, RETRY);
  }

  open();
}
