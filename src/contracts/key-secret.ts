/** A key is never longer; what is, is not worth a hash. */
const KEY = /^purser_(?:op|pk|rk)_[\w-]{20,200}$/
const BEARER = /^Bearer +(\S+) *$/i

/** Whether a text has the form of a key: `purser_op_…` of an operator, `purser_pk_…` of a project, `purser_rk_…` of an external run. */
export function isKey(text: string): boolean {
  return KEY.test(text)
}

/** The key in an Authorization header; undefined when it carries none. */
export function bearerKey(header: string | undefined): string | undefined {
  const secret = BEARER.exec(header ?? '')?.[1]
  return secret !== undefined && isKey(secret) ? secret : undefined
}
