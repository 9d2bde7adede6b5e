import { AnswerTooLong } from './answer-collector.ts'

/** More than any answer, error or list of vectors takes: an upstream that never ends must not take the process along. */
const MAX_BODY_BYTES = 134_217_728

/**
 * The `fetch` that the providers' clients are given. It follows no redirect, so that a prompt goes to the host that was
 * configured and nowhere else, and it takes no endless body.
 */
export async function boundedFetch(...[address, options]: Parameters<typeof fetch>): Promise<Response> {
  const response = await fetch(address, { ...options, redirect: 'manual' })
  return response.body === null ? response : new Response(bounded(response.body), response)
}

function bounded(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  let bytes = 0
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await reader.read()
        if (done) return controller.close()
        bytes += value.length
        if (bytes > MAX_BODY_BYTES) throw new AnswerTooLong(`the answer has more than ${MAX_BODY_BYTES} bytes`)
        controller.enqueue(value)
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  )
}
