const RETRY = 1000;

/** Canvas with the newest picture; the next one is requested when one is drawn, so that a slow viewer never lags. */
export function startViewer(canvas) {
  const context = canvas.getContext("2d", { alpha: false });

  function open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/frames`);
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
