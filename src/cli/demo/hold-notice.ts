import { createServer } from 'node:http'

/** Where the provider says that it holds a request. */
export interface HoldNotice {
  readonly url: string
  readonly arrived: Promise<void>
  close(): Promise<void>
}

/** Listens on loopback for one notification. */
export async function listenForHold(): Promise<HoldNotice> {
  const arrived = Promise.withResolvers<void>()
  const server = createServer((request, response) => {
    request.resume()
    response.end()
    arrived.resolve()
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('A listening server has no port.')
  return {
    url: `http://127.0.0.1:${address.port}/`,
    arrived: arrived.promise,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
