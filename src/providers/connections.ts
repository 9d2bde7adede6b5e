import type { ProxySettings } from '#contracts/provider-settings.ts'
import { Agent, EnvHttpProxyAgent, Pool, type Dispatcher } from 'undici'

/** The connections of a process to all upstreams. */
export type Connections = Dispatcher

/** HTTP/1.1, because `sending.ts` watches each request being written. Attempts have time-outs of their own. */
const OPTIONS = { allowH2: false, headersTimeout: 0, bodyTimeout: 0 } as const

/** No proxy finds what listens on this machine, a sandbox above all. */
const HERE = 'localhost,127.0.0.1,::1'

/** How long a tunnel may take: as long as undici lets a connection take. */
const TUNNEL_MS = 10_000

/** Straight to each upstream. */
export const DIRECT: Connections = new Agent(OPTIONS)

/**
 * Connections by the proxies that an environment names; https is tunnelled, so that a proxy sees neither key nor prompt.
 * What is not named stays unnamed: the library would look into the environment itself.
 */
export function connectionsBy(proxy: ProxySettings | undefined): Connections {
  if (!proxy) return DIRECT
  const { http = '', https = '', except = '' } = proxy
  return new EnvHttpProxyAgent({
    ...OPTIONS,
    httpProxy: http,
    httpsProxy: https,
    noProxy: `${HERE},${except}`,
    // What asks for tunnels.
    clientFactory: (origin, options) => new Pool(origin, { ...options, headersTimeout: TUNNEL_MS }),
  })
}
