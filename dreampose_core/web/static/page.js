// What the parts of the page share: the HTTP API with this visitor's token, and how an element is made. Links are relative, so that the page works
// below any path.
window.dreampose = {
  owner: null,
  refresh() {}, // reads My videos and Saved people again
  relative: (link) => link.replace(/^.*?(?=results\/)/, ""),
  made(tag, how = {}, ...inside) {
    const node = Object.assign(document.createElement(tag), how);
    node.append(...inside);
    return node;
  },
  async api(path, options = {}) {
    const headers = { Authorization: `Bearer ${window.dreampose.owner}`, "Content-Type": "application/json" };
    const answer = await fetch(`api/v1/${path}`, { ...options, headers });
    const body = answer.status === 204 ? null : await answer.json();
    if (!answer.ok) throw Object.assign(new Error(body.error), { status: answer.status });
    return body;
  },
};
