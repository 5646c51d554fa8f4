import { socketUrl } from "./link.js";

const LARGEST = 960;
const INSECURE = "browsers give cameras only to https and localhost: start the server with --certificate, or take a photo with Upload.";

/** Camera of this device: its pictures go to the server, one whenever the server asks. */
export function startCamera(say) {
  const button = document.querySelector("#camera");
  const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
  const canvas = document.createElement("canvas");
  let stream;
  let socket;

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    socket?.close();
    stream = socket = undefined;
    button.setAttribute("aria-pressed", "false");
  }

  async function send() {
    if (!socket || !stream) return;
    const scale = Math.min(1, LARGEST / Math.max(video.videoWidth, video.videoHeight, 1));
    [canvas.width, canvas.height] = [video.videoWidth * scale, video.videoHeight * scale];
    canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0, canvas.width, canvas.height);
    const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.8));
    if (picture && socket?.readyState === WebSocket.OPEN) socket.send(picture);
  }

  async function start() {
    if (!navigator.mediaDevices) return say(INSECURE);
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false, video: { facingMode: { ideal: "environment" }, width: { ideal: LARGEST } },
      });
      video.srcObject = stream;
      await video.play();
    } catch (error) {
      stop();
      return say(error.name === "NotAllowedError" ? "the browser was told not to give its camera." : "there is no camera here.");
    }
    say("");
    button.setAttribute("aria-pressed", "true");
    socket = new WebSocket(socketUrl("api/camera"));
    // One picture for each frame of the camera at most.
    socket.onmessage = () => ("requestVideoFrameCallback" in video ? video.requestVideoFrameCallback(send) : setTimeout(send, 30));
    socket.onclose = stop;
  }

  button.addEventListener("click", () => (stream ? stop() : start()));
}
