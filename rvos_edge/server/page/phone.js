import { attempt } from "./errors.js";
import { request } from "./link.js";

/** Sheet with the address of this page as a QR code. */
export function startPhone(say) {
  const sheet = document.querySelector("#phone-sheet");
  const [picture, address, hint] = ["#qr", "#phone-address", "#phone-hint"].map((id) => sheet.querySelector(id));

  document.querySelector("#phone").addEventListener("click", () =>
    attempt(async () => {
      const told = await request("GET", "api/phone");
      picture.hidden = told.address === null;
      if (told.qr) picture.src = `data:image/svg+xml,${encodeURIComponent(told.qr)}`;
      picture.alt = told.address === null ? "" : `QR code of ${told.address}`;
      address.textContent = told.address ?? "Only this machine can open this page.";
      hint.textContent = told.address === null
        ? "Start it with --serve 0.0.0.0:8000 --token SECRET."
        : told.address.startsWith("https:") ? "The code holds the token." : "The code holds the token. Phones give their camera only to https: see --certificate; uploads work without.";
      sheet.showModal();
    }, say),
  );
}
