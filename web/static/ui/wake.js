/**
 * Keeps the screen on while the page is looked at, where the browser can (over https, or on this device
 * itself).
 */

export function stayAwake() {
  if (!("wakeLock" in navigator)) return;
  const ask = () => {
    if (document.hidden) return;
    navigator.wakeLock.request("screen").catch(() => {
      // Refused, for a low battery for example: the screen then goes by the device's own setting.
    });
  };
  document.addEventListener("visibilitychange", ask);
  ask();
}
