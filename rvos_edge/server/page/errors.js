let count = 0;

/** Paragraph after an element that says what is wrong with a field; an empty sentence removes it. */
export function errorBeside(field, after = field) {
  const note = Object.assign(document.createElement("p"), { className: "error", id: `error-${++count}` });
  note.setAttribute("role", "alert");
  after.after(note);
  return (sentence) => {
    if (note.textContent === sentence) return;
    note.textContent = sentence;
    if (sentence) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", note.id);
    } else {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
  };
}

/** Do some work, and say why it fails; resolves to true where it does not. */
export async function attempt(work, say) {
  try {
    await work();
    say("");
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}
