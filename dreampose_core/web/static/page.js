// What the parts of the page share: the HTTP API with this visitor's token. Links are relative, so that the page works below any path.
window.dreampose = {
  owner: null,
  refresh() {}, // reads My videos and Saved people again
  relative: (link) => link.replace(/^.*?(?=results\/)/, ""),
  async api(path, method = "GET", body = undefined) {
    const headers = { Authorization: `Bearer ${window.dreampose.owner}`, "Content-Type": "application/json" };
    const answer = await fetch(`api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
    const given = answer.status === 204 ? null : await answer.json();
    if (!answer.ok) throw Object.assign(new Error(given.error), { status: answer.status });
    return given;
  },
};
