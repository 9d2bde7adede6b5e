import { Problem } from '#contracts/codes.ts'
import type { SecretBox } from '#db/secret-box.ts'
import type { RouteDeps } from './api-deps.ts'

/** What encrypts a secret before it is stored. @throws Problem `no_secrets_key`: in clear nothing is stored */
export function secretBoxOf({ secrets }: Pick<RouteDeps, 'secrets'>): SecretBox {
  if (secrets) return secrets.now()
  throw new Problem('no_secrets_key', 'This installation has no key that secrets are encrypted with.', {
    remedy:
      'Have an operator make one (purser secrets key >> FILE), set PURSER_SECRETS_KEY_FILE to it for all API and worker processes, and start them again.',
  })
}
