// Keeps the page, the newest links and the tags for when there is no network. Only answers are kept, by their
// URLs: a key is in neither. It asks for the page without a query, in which an app says what it shares.
const cached = caches.open("links");

addEventListener("fetch", event => {
  const {url, method, mode} = event.request, isPage = mode == "navigate";
  if (isPage || method == "GET" && /\/(link|tags)\?$/.test(url)) event.respondWith(answer(event.request, isPage));
});

async function answer(request, isPage) {
  const url = isPage ? registration.scope : request.url, cache = await cached;
  try {
    const fresh = await fetch(isPage ? url : request), copy = fresh.clone();
    const dated = isPage ? copy : new Response(await copy.text(), {headers: {Kept: new Date().toISOString()}});
    if (fresh.ok) await cache.put(url, dated);
    return fresh;
  } catch (error) {
    return await cache.match(url) ?? Promise.reject(error);
  }
}
