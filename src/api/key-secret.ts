import { randomBytes } from 'node:crypto'

const SECRET_BYTES = 32

/** A new secret. Operators, projects and external runs are told apart at a glance. */
export function makeSecret(kind: 'op' | 'pk' | 'rk'): string {
  return `purser_${kind}_${randomBytes(SECRET_BYTES).toString('base64url')}`
}
