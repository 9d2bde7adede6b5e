import { PurserClient } from '#client/purser-client.ts'
import { findLocalAccount } from './up-account.ts'
import { findStack } from './up-state.ts'

/**
 * Finds the API: the one named in the environment, else the stack of this checkout, with its project's key unless another
 * one is given: an operator's.
 *
 * @throws what to do when there is none
 */
export async function connectToApi(
  env: NodeJS.ProcessEnv,
  options: { readonly signal?: AbortSignal } = {},
): Promise<PurserClient> {
  const { PURSER_URL: url, PURSER_KEY: key } = env
  if (url !== undefined) {
    if (!key) throw new Error('PURSER_URL is set, and PURSER_KEY is not: set it to the key of a project.')
    if (!URL.canParse(url)) throw new Error(`PURSER_URL is not an address such as http://127.0.0.1:8080: ${url}`)
    return new PurserClient(url, key, options)
  }
  const stack = await findStack(env)
  if (!stack) {
    throw new Error(
      'No Purser is running here. Start one with `npm run dev` (or `purser up`) in another terminal, ' +
        'or set PURSER_URL and PURSER_KEY to one that runs elsewhere.',
    )
  }
  if (key) return new PurserClient(stack.apiUrl, key, options)
  const account = await findLocalAccount(env)
  if (!account) throw new Error(`The stack at ${stack.apiUrl} has no project yet: wait until it says that it is up.`)
  return new PurserClient(stack.apiUrl, account.key, options)
}
